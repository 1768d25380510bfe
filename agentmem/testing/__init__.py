"""Tools to test agents and stores: histories, races, stress, merge laws, faults."""
