"""What every backend of the key store must do. Nothing in here knows which one it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from proxy.identity.api_keys import ApiKey, issue, verify
from proxy.store.errors import NameTakenError, StoreError, UnknownKeyError
from proxy.store.keys import KeyStore

NOW = 1_800_000_000

OpenKeyStore = Callable[[], KeyStore]


def run(open_key_store: OpenKeyStore, action: Callable[[KeyStore], Awaitable[Any]]) -> Any:
    """One process: opens the store, does something in it and closes it."""
    store = open_key_store()

    async def act() -> Any:
        try:
            return await action(store)
        finally:
            await store.close()

    return asyncio.run(act())


def create(open_key_store: OpenKeyStore, name: str, now: int = NOW, **changes: Any) -> ApiKey:
    key = replace(issue(name, now)[1], **changes)
    run(open_key_store, lambda store: store.create(key))
    return key


def test_a_created_key_is_there_for_the_next_process(open_key_store):
    written, key = issue("laptop", NOW, scopes=["read", "push"], expires=NOW + 60)
    run(open_key_store, lambda store: store.create(key))
    assert run(open_key_store, lambda store: store.get(key.id)) == key
    keys = run(open_key_store, lambda store: store.load_all())
    assert keys == {key.id: key}
    assert verify(keys, written.encode(), NOW) == key


def test_every_property_of_a_key_survives_the_store(open_key_store):
    key = create(
        open_key_store,
        "everything",
        kind="ssh",
        digests=(b"\x00" * 32, bytes(range(32))),
        scopes=frozenset(),
        models=("llama3.2:*", "hf.co/acme/*"),
        cloud=True,
        limits={"concurrent": 3, "tokens_per_day": 10**12},
        expires=2**37,
        last_used=NOW - 5,
    )
    stored = run(open_key_store, lambda store: store.get(key.id))
    assert replace(stored, digests=()) == replace(key, digests=())
    assert set(stored.digests) == set(key.digests)


def test_no_models_and_every_model_are_kept_apart(open_key_store):
    none, every = create(open_key_store, "none", models=()), create(open_key_store, "every", models=None)
    stored = run(open_key_store, lambda store: store.load_all())
    assert (stored[none.id].models, stored[every.id].models) == ((), None)


def test_times_are_whole_seconds(open_key_store):
    key = create(open_key_store, "laptop", NOW + 0.9, expires=NOW + 60.9)
    stored = run(open_key_store, lambda store: store.get(key.id))
    assert (stored.created, stored.expires) == (NOW, NOW + 60)


def test_an_empty_store_lists_nothing(open_key_store):
    assert run(open_key_store, lambda store: store.list()) == []
    assert run(open_key_store, lambda store: store.load_all()) == {}


def test_keys_are_listed_with_the_oldest_first_and_the_revoked_among_them(open_key_store):
    newest, oldest, middle = (create(open_key_store, str(age), NOW - age) for age in (0, 20, 10))
    run(open_key_store, lambda store: store.revoke(middle.id, NOW))
    listed = run(open_key_store, lambda store: store.list())
    assert [key.id for key in listed] == [oldest.id, middle.id, newest.id]
    assert [key.revoked for key in listed] == [None, NOW, None]


def test_a_revoked_key_is_no_longer_loaded_but_still_shown(open_key_store):
    gone, stays = create(open_key_store, "gone"), create(open_key_store, "stays")
    assert run(open_key_store, lambda store: store.revoke(gone.id, NOW + 5)) == (gone.id, "gone")
    assert run(open_key_store, lambda store: store.get(gone.id)) == replace(gone, revoked=NOW + 5)
    assert run(open_key_store, lambda store: store.load_all()) == {stays.id: stays}


def test_an_expired_key_is_still_loaded_so_that_its_owner_is_told(open_key_store):
    key = create(open_key_store, "laptop", expires=NOW - 1)
    assert run(open_key_store, lambda store: store.load_all()) == {key.id: key}


def test_revoking_twice_keeps_the_first_time(open_key_store):
    key = create(open_key_store, "laptop")
    for now in (NOW + 1, NOW + 2):
        assert run(open_key_store, lambda store, now=now: store.revoke(key.id, now)) == (key.id, "laptop")
        assert run(open_key_store, lambda store: store.get(key.id)).revoked == NOW + 1


def harm(open_key_store: OpenKeyStore, key: ApiKey) -> None:
    """Somebody else writes into the database what we never would."""

    async def write(store: KeyStore) -> None:
        async with store._engine.begin() as connection:
            await connection.execute(text("UPDATE keys SET scopes = '[' WHERE id = :id"), {"id": key.id})

    run(open_key_store, write)


def test_the_other_keys_are_listed_where_one_cannot_be_read_and_that_one_is_named(open_key_store):
    good, bad = create(open_key_store, "good"), create(open_key_store, "bad")
    assert run(open_key_store, lambda store: store.unreadable()) is None
    harm(open_key_store, bad)
    assert run(open_key_store, lambda store: store.list()) == [good]
    assert run(open_key_store, lambda store: store.load_all()) == {good.id: good}
    fault = run(open_key_store, lambda store: store.unreadable())
    assert str(fault) == f"the stored key {bad.id} cannot be read: revoke it and create another"
    with pytest.raises(StoreError, match=f"the stored key {bad.id} cannot be read"):
        run(open_key_store, lambda store: store.get(bad.id))


def test_any_key_can_be_revoked_where_one_cannot_be_read_and_that_one_too(open_key_store):
    good, bad = create(open_key_store, "good"), create(open_key_store, "bad")
    harm(open_key_store, bad)
    assert run(open_key_store, lambda store: store.revoke(good.id, NOW)) == (good.id, "good")
    assert run(open_key_store, lambda store: store.get(good.id)).revoked == NOW
    assert run(open_key_store, lambda store: store.revoke(bad.id, NOW)) == (bad.id, "bad")
    assert run(open_key_store, lambda store: store.unreadable()) is None


def test_the_name_of_a_key_that_cannot_be_read_is_taken_until_that_is_revoked(open_key_store):
    bad = create(open_key_store, "laptop")
    harm(open_key_store, bad)
    with pytest.raises(NameTakenError, match=f"'laptop' belongs to the key {bad.id}"):
        create(open_key_store, "laptop")
    run(open_key_store, lambda store: store.revoke(bad.id, NOW))
    another = create(open_key_store, "laptop")
    assert run(open_key_store, lambda store: store.load_all()) == {another.id: another}


@pytest.mark.parametrize("key_id", ["0000000000", "", "' OR 1=1 --", "%", "é", "\udcff", "x" * 10_000])
def test_an_id_that_no_key_has_is_unknown(open_key_store, key_id):
    create(open_key_store, "laptop")
    for action in (lambda store: store.get(key_id), lambda store: store.revoke(key_id, NOW)):
        with pytest.raises(UnknownKeyError, match="no key has this id"):
            run(open_key_store, action)


def test_a_name_is_taken_while_its_key_is_not_revoked(open_key_store):
    first = create(open_key_store, "laptop", expires=NOW - 1)
    with pytest.raises(NameTakenError, match=f"'laptop' belongs to the key {first.id}"):
        create(open_key_store, "laptop")
    assert run(open_key_store, lambda store: store.list()) == [first]
    run(open_key_store, lambda store: store.revoke(first.id, NOW))
    second = create(open_key_store, "laptop")
    assert run(open_key_store, lambda store: store.load_all()) == {second.id: second}


def test_a_key_is_stored_whole_or_not_at_all(open_key_store):
    with pytest.raises(Exception, match="key store"):
        create(open_key_store, "laptop", digests=(b"\x00" * 32, b"\x00" * 32))
    assert run(open_key_store, lambda store: store.list()) == []


def test_many_writers_at_once_lose_nothing(open_key_store):
    keys = [issue(f"writer {number}", NOW)[1] for number in range(20)]

    async def create_all(store: KeyStore) -> None:
        await asyncio.gather(*(store.create(key) for key in keys))

    run(open_key_store, create_all)
    assert run(open_key_store, lambda store: store.load_all()) == {key.id: key for key in keys}


def test_of_many_who_ask_for_one_name_one_gets_it(open_key_store):
    async def create_all(store: KeyStore) -> list[Any]:
        made = (store.create(issue("same", NOW)[1]) for _ in range(10))
        return await asyncio.gather(*made, return_exceptions=True)

    results = run(open_key_store, create_all)
    assert sorted(type(result).__name__ for result in results) == ["NameTakenError"] * 9 + ["NoneType"]
