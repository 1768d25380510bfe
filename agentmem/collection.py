"""The entries of a namespace as instances of a pydantic model."""

from __future__ import annotations

from builtins import list as List  # noqa: N812  # the method list() hides the type in the class
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from agentmem.buffered import BufferedView
from agentmem.course import Call, Course, drive, refuse_async
from agentmem.errors import InvalidValueError, KeyMissingError
from agentmem.model import DELETE, MISSING, Entry, display_key
from agentmem.namespaces import Labels, Pattern
from agentmem.views import View

__all__ = ["Collection"]

M = TypeVar("M")
D = TypeVar("D")


class Collection(Generic[M]):
    """Typed entries: values are checked against a pydantic model when written and when read.

    Merge strategies are taken from annotations, for this process::

        class Note(BaseModel):
            title: str
            tags: Annotated[list[str], merge.union] = []
            reads: Annotated[int, merge.counter] = 0


        notes = store.collection(Note, "notes")
        notes.put("plan", Note(title="Plan"))
        entry = notes.get("plan")  # Entry[Note]
        with store.transaction() as tx:
            notes.on(tx).put("plan", ...)  # the same collection inside a transaction

    Writing arguments are those of the view it is on.
    """

    __module__ = "agentmem"

    def __init__(self, view: View, model: type[M], namespace: Labels) -> None:
        self._view = view
        self._model = model
        self._namespace = namespace
        self._adapter: TypeAdapter[M] = TypeAdapter(model)

    def register(self) -> None:
        """Registers the merge strategies of the model's annotations, in this process."""
        from agentmem.merge import strategies_of

        if not (isinstance(self._model, type) and issubclass(self._model, BaseModel)):
            return
        strategy = strategies_of(self._model)
        core, scope = self._view._core, self._view._scope
        pattern = Pattern.parse("*", core.limits, scope.prefix + self._namespace)
        core.registry.add_hook(pattern, strategy, strategy.name)

    @property
    def namespace(self) -> Labels:
        """The namespace of the entries; only keys directly in it belong to the collection."""
        return self._namespace

    def on(self, view: View) -> Collection[M]:
        """The same collection on a transaction, snapshot or another store."""
        return Collection(view, self._model, self._namespace)

    # Reading.

    def get(self, key: str, *, default: D | None = None, track: bool = True) -> Entry[M] | D | None:
        """The entry of a key, or the default if it is absent.

        Raises:
            InvalidValueError: what is stored is no instance of the model.
        """
        entry = self._view.get(key, namespace=self._namespace, track=track)
        return default if entry is None else self._typed(entry)

    def __getitem__(self, key: str) -> M:
        entry = self.get(key)
        if entry is None:
            raise KeyMissingError(
                f"{display_key(self._namespace, key)!r} is absent",
                namespace=self._namespace,
                key=key,
            )
        return entry.value

    def __contains__(self, key: str) -> bool:
        return self._view.get(key, namespace=self._namespace) is not None

    def list(
        self,
        *,
        key_prefix: str | None = None,
        where: object = None,
        limit: int | None = None,
        after: object = None,
    ) -> List[Entry[M]]:
        """The entries directly in the namespace, by key; arguments as `View.list`."""
        found: List[Entry[M]] = []
        while limit is None or len(found) < limit:
            wanted = None if limit is None else limit - len(found)
            page = self._view.list(
                self._namespace, key_prefix=key_prefix, where=where, limit=wanted, after=after
            )
            found += [self._typed(each) for each in page if each.namespace == self._namespace]
            if wanted is None or len(page) < wanted:
                break
            after = page[-1]
        return found

    # Writing.

    def put(self, key: str, value: M, **options: Any) -> Any:
        """Sets a key; options and result as ``put`` of the view."""
        dumped = self._dump(value)
        entry = self._writer("put")(key, dumped, namespace=self._namespace, **options)
        return self._typed(entry) if isinstance(entry, Entry) else entry

    def add(self, value: M, **options: Any) -> Any:
        """Puts a value under a new key; options and result as ``add`` of the view."""
        entry = self._writer("add")(self._dump(value), namespace=self._namespace, **options)
        return self._typed(entry) if isinstance(entry, Entry) else entry

    def delete(self, key: str, **options: Any) -> Any:
        """Deletes a key; options and result as ``delete`` of the view."""
        return self._writer("delete")(key, namespace=self._namespace, **options)

    def update(
        self, key: str, fn: Callable[[M], Any], *, default: object = MISSING, **options: Any
    ) -> Entry[M] | None:
        """As `Store.update`, with models. In a transaction it reads, and puts the change.

        Raises:
            KeyMissingError: the key is absent, and there is no default.
        """
        refuse_async(fn, "update")
        return drive(self.updating(key, fn, default=default, **options))

    def updating(
        self, key: str, fn: Callable[[M], Any], *, default: object = MISSING, **options: Any
    ) -> Course[Entry[M] | None]:
        """As `update`."""

        def change(value: Any) -> Course[Any]:
            after = yield Call(fn, self._load(value, key))
            return after if after is DELETE else self._dump(after)

        start = default if default is MISSING else self._dump(default)
        if isinstance(self._view, BufferedView):
            return (yield from self._update_in(self._view, key, change, start))
        entry = yield from self._writer("changing")(
            key, change, namespace=self._namespace, default=start, **options
        )
        return None if entry is None or entry.deleted else self._typed(entry)

    def _update_in(
        self, view: BufferedView, key: str, change: Callable[[Any], Course[Any]], start: object
    ) -> Course[Entry[M] | None]:
        entry = view.get(key, namespace=self._namespace)
        if entry is None and start is MISSING:
            raise KeyMissingError(
                f"{display_key(self._namespace, key)!r} is absent",
                namespace=self._namespace,
                key=key,
            )
        after = yield from change(start if entry is None else entry.value)
        if after is DELETE:
            view.delete(key, namespace=self._namespace)
            return None
        view.put(key, after, namespace=self._namespace)
        pending = view.get(key, namespace=self._namespace)
        return self._typed(pending) if pending is not None else None

    def _writer(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] | None = getattr(self._view, name, None)
        if method is None:
            raise TypeError(f"{type(self._view).__name__} can only be read")
        return method

    # Models in and out.

    def _dump(self, value: object) -> Any:
        try:
            checked = self._adapter.validate_python(value)
            return self._adapter.dump_python(checked, mode="json")
        except ValidationError as error:
            raise self._invalid("the value", error) from error

    def _load(self, value: Any, key: str) -> M:
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            name = display_key(self._namespace, key)
            raise self._invalid(f"what is stored under {name!r}", error) from error

    def _typed(self, entry: Entry[Any]) -> Entry[M]:
        if entry.deleted:
            return entry
        return replace(entry, value=self._load(entry.value, entry.key))

    def _invalid(self, what: str, error: ValidationError) -> InvalidValueError:
        first = error.errors(include_url=False, include_input=False)[0]
        path = "$" + "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
        )
        name = getattr(self._model, "__name__", str(self._model))
        return InvalidValueError(
            f"{what} is no {name}: at {path}: {first['msg']}"
            + (f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""),
            path=path,
        )
