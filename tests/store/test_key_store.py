"""What every backend of the key store must do. Nothing in here knows which one it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from proxy.identity.api_keys import ApiKey, Refusal, Secret, digest, issue, issue_ssh, reissue, verify
from proxy.store.errors import NameTakenError, PublicKeyTakenError, StoreError, UnknownKeyError
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
        secrets=(Secret(b"\x00" * 32, NOW + 9), Secret(bytes(range(32)))),
        scopes=frozenset(),
        models=("llama3.2:*", "hf.co/acme/*"),
        cloud=True,
        limits={"max_context": 4096, "max_output_tokens": 2**53, "min_keep_alive": 1, "max_keep_alive": 60},
        expires=2**37,
        last_used=NOW - 5,
    )
    stored = run(open_key_store, lambda store: store.get(key.id))
    assert stored == key
    assert stored.last_used == NOW - 5


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
    for action in (
        lambda store: store.get(key_id),
        lambda store: store.revoke(key_id, NOW),
        lambda store: store.change(key_id, cloud=True),
        lambda store: store.rotate(key_id, bytes(32), NOW, 60),
    ):
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
        create(open_key_store, "laptop", secrets=(Secret(b"\x00" * 32), Secret(b"\x00" * 32)))
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


# Changing


def test_of_a_changed_key_the_rest_stays(open_key_store):
    key = create(
        open_key_store,
        "laptop",
        models=("llama3.2",),
        limits={"max_context": 4096, "min_keep_alive": 60},
        expires=NOW + 60,
        last_used=NOW - 5,
    )
    wanted = key
    for changes, after in [
        ({"scopes": ["push"]}, {"scopes": frozenset({"push"})}),
        ({"models": ["qwen3:*", "a"]}, {"models": ("qwen3:*", "a")}),
        ({"models": None}, {"models": None}),
        ({"models": ()}, {"models": ()}),
        ({"cloud": True}, {"cloud": True}),
        (
            {"limits": {"max_context": 0, "max_keep_alive": 90}},
            {"limits": {"min_keep_alive": 60, "max_keep_alive": 90}},
        ),
        ({"expires": NOW + 90.9}, {"expires": NOW + 90}),
        ({"expires": None, "cloud": False}, {"expires": None, "cloud": False}),
    ]:
        wanted = replace(wanted, **after)
        changed = run(open_key_store, lambda store, changes=changes: store.change(key.id, **changes))
        assert replace(changed, expires=wanted.expires) == wanted
        stored = run(open_key_store, lambda store: store.get(key.id))
        assert (stored, stored.last_used) == (wanted, NOW - 5)


def test_changing_one_key_leaves_the_others_alone(open_key_store):
    key, other = create(open_key_store, "laptop"), create(open_key_store, "phone")
    run(open_key_store, lambda store: store.change(key.id, cloud=True))
    assert run(open_key_store, lambda store: store.get(other.id)) == other


@pytest.mark.parametrize(
    ("grants", "told"),
    [
        (
            {"limits": {"min_keep_alive": 61}},
            "the shortest keep_alive allowed would be longer than the longest",
        ),
        ({"limits": {"concurrent": 3}}, "not an object of max_context"),
        ({"models": ["a b"]}, "a pattern for models must be"),
    ],
)
def test_a_change_that_makes_no_sense_is_told_and_nothing_is_changed(open_key_store, grants, told):
    key = create(open_key_store, "laptop", limits={"max_keep_alive": 60})
    with pytest.raises(StoreError, match=f"the key {key.id} stays as it was: {told}"):
        run(open_key_store, lambda store: store.change(key.id, cloud=True, **grants))
    assert run(open_key_store, lambda store: store.get(key.id)) == key


def test_changes_at_the_same_time_lose_nothing(open_key_store):
    key = create(open_key_store, "laptop")
    limits = {"max_context": 1, "max_output_tokens": 2, "min_keep_alive": 3, "max_keep_alive": 4}

    async def change_all(store: KeyStore) -> None:
        await asyncio.gather(*(store.change(key.id, limits={name: n}) for name, n in limits.items()))

    run(open_key_store, change_all)
    assert run(open_key_store, lambda store: store.get(key.id)).limits == limits


@pytest.mark.parametrize("act", ["change", "rotate"])
def test_a_key_that_is_revoked_or_cannot_be_read_is_not_changed(open_key_store, act):
    gone, bad = create(open_key_store, "gone"), create(open_key_store, "bad")
    run(open_key_store, lambda store: store.revoke(gone.id, NOW))
    harm(open_key_store, bad)
    action = {
        "change": lambda store, key: store.change(key.id, cloud=True),
        "rotate": lambda store, key: store.rotate(key.id, bytes(32), NOW, 60),
    }[act]
    with pytest.raises(StoreError, match=f"the key {gone.id} was revoked, which is for good: create another"):
        run(open_key_store, lambda store: action(store, gone))
    assert run(open_key_store, lambda store: store.get(gone.id)) == replace(gone, revoked=NOW)
    with pytest.raises(StoreError, match=f"the stored key {bad.id} cannot be read: revoke it"):
        run(open_key_store, lambda store: action(store, bad))


# Rotating


def rotate(open_key_store: OpenKeyStore, key: ApiKey, now: float, overlap: float) -> str:
    """Returns the new text."""
    text = reissue(key.id)
    secret = digest(text.encode())
    changed = run(open_key_store, lambda store: store.rotate(key.id, secret, now, overlap))
    assert run(open_key_store, lambda store: store.get(key.id)) == changed
    return text


def accepted(open_key_store: OpenKeyStore, text: str, now: float) -> bool:
    keys = run(open_key_store, lambda store: store.load_all())
    return not isinstance(verify(keys, text.encode(), now), Refusal)


def issued(open_key_store: OpenKeyStore, name: str = "laptop") -> tuple[str, ApiKey]:
    text, key = issue(name, NOW)
    run(open_key_store, lambda store: store.create(key))
    return text, key


def test_after_a_rotation_both_secrets_hold_until_the_overlap_ends(open_key_store):
    old, key = issued(open_key_store)
    bystander, _ = issued(open_key_store, "phone")
    new = rotate(open_key_store, key, NOW + 10, 60)
    for now, old_holds in [(NOW + 10, True), (NOW + 69.9, True), (NOW + 70, False), (NOW + 10**8, False)]:
        assert accepted(open_key_store, old, now) == old_holds
        assert accepted(open_key_store, new, now)
        assert accepted(open_key_store, bystander, now)
    stored = run(open_key_store, lambda store: store.get(key.id))
    assert replace(stored, secrets=()) == replace(key, secrets=())
    assert set(stored.secrets) == {Secret(digest(old.encode()), NOW + 70), Secret(digest(new.encode()))}


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(open_key_store):
    old, key = issued(open_key_store)
    new = rotate(open_key_store, key, NOW + 10.9, 0)
    assert not accepted(open_key_store, old, NOW + 10.9)
    assert accepted(open_key_store, new, NOW + 10.9)


def test_no_rotation_lengthens_the_life_of_a_secret(open_key_store):
    first, key = issued(open_key_store)
    second = rotate(open_key_store, key, NOW, 60)
    third = rotate(open_key_store, key, NOW + 10, 3600)
    assert accepted(open_key_store, first, NOW + 59)
    assert not accepted(open_key_store, first, NOW + 60)
    assert accepted(open_key_store, second, NOW + 3609)
    assert not accepted(open_key_store, second, NOW + 3610)
    fourth = rotate(open_key_store, key, NOW + 20, 0)
    assert [accepted(open_key_store, text, NOW + 20) for text in (first, second, third, fourth)] == [
        *[False] * 3,
        True,
    ]


def test_secrets_long_past_are_forgotten(open_key_store):
    _, key = issued(open_key_store)
    for week in range(6):
        rotate(open_key_store, key, NOW + week * 7 * 86_400, 3600)
    assert len(run(open_key_store, lambda store: store.get(key.id)).secrets) == 3


def test_only_keys_that_are_sent_can_be_rotated(open_key_store):
    key = issue_ssh("desk", b"a public key", NOW)
    run(open_key_store, lambda store: store.create(key))
    with pytest.raises(StoreError, match=f"the key {key.id} is an ssh key, .* keys add-ssh"):
        rotate(open_key_store, key, NOW, 60)
    assert run(open_key_store, lambda store: store.get(key.id)) == key


def test_rotations_at_the_same_time_all_count(open_key_store):
    _, key = issued(open_key_store)
    texts = [reissue(key.id) for _ in range(5)]

    async def rotate_all(store: KeyStore) -> None:
        await asyncio.gather(*(store.rotate(key.id, digest(t.encode()), NOW, 60) for t in texts))

    run(open_key_store, rotate_all)
    assert all(accepted(open_key_store, text, NOW) for text in texts)
    ends = [secret.expires for secret in run(open_key_store, lambda store: store.get(key.id)).secrets]
    assert sorted(ends, key=str) == [*[NOW + 60] * 5, None]


# Public keys


def test_a_public_key_belongs_to_one_key_that_is_not_revoked(open_key_store):
    first, second = (issue_ssh(name, b"a public key", NOW) for name in ("first", "second"))
    run(open_key_store, lambda store: store.create(first))
    with pytest.raises(PublicKeyTakenError, match=f"registered already, as the key {first.id}"):
        run(open_key_store, lambda store: store.create(second))
    assert run(open_key_store, lambda store: store.list()) == [first]
    other = issue_ssh("other", b"another public key", NOW)
    run(open_key_store, lambda store: store.create(other))
    run(open_key_store, lambda store: store.revoke(first.id, NOW))
    run(open_key_store, lambda store: store.create(second))
    assert run(open_key_store, lambda store: store.load_all()) == {key.id: key for key in (second, other)}


def test_of_many_who_register_one_public_key_one_gets_it(open_key_store):
    async def create_all(store: KeyStore) -> list[Any]:
        made = (store.create(issue_ssh(str(number), b"a public key", NOW)) for number in range(10))
        return await asyncio.gather(*made, return_exceptions=True)

    results = run(open_key_store, create_all)
    assert sorted(type(result).__name__ for result in results) == ["NoneType"] + ["PublicKeyTakenError"] * 9
