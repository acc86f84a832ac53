"""`certagent migrate`: a chart's values or a pod with annotations of vault-agent's injector."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings

from certagent.cli.migration import delivery
from certagent.cli.migration.annotations import PREFIX, TABLE, not_convertible
from certagent.cli.migration.login import Wishes
from certagent.cli.migration.reading import choose, places
from certagent.cli.migration.report import report
from certagent.cli.migration.templates import NotConvertible, read_template
from certagent.cli.migration.translation import migrate
from certagent.kubernetes.options import Options
from certagent.kubernetes.rendering import yaml as rendered
from tests.fuzz.judging import corpus, judge, typed
from tests.fuzz.mutations import mangled, mangled_json
from tests.fuzz.test_configuration import YAML_TOKENS
from tests.support.effort import effort
from tests.support.injector import FORMS, TLS, annotations, deployment, values

SECRET = "hvs.canary-that-stands-elsewhere-in-the-values"
SEEDS = [
    yaml.safe_load(values(annotations(), env={"ROOT_CA_DIR": "/vault/secrets", "TOKEN": SECRET})),
    yaml.safe_load(
        values(annotations({"agent-limits-mem": "64Mi"}, files=TLS), volumes=[{"name": "a"}])
    ),
    deployment(annotations({"auth-type": "jwt", "client-timeout": "1m30s"})),
]
TOKENS = [*YAML_TOKENS, *(f"{PREFIX}{name}: x\n".encode() for name in TABLE)]


def examples() -> list[bytes]:
    """What atheris starts from, beside the corpus: made anew, for it has keys."""
    return [yaml.safe_dump(each).encode() for each in SEEDS]


def attempt(data: bytes) -> None:
    """Migrate the bytes, and render what comes of them."""
    with typed(secrets=[SECRET]):
        place = choose(places(data, "FILE"), None, "FILE")
        migration = migrate(place, Wishes(address="https://vault.example.com"))
        made = (
            delivery.patch(migration, Options(), name="istiod", namespace="istio-system")
            if place.is_pod
            else delivery.values(migration, Options())
        )
        text = rendered(made)
        assert yaml.safe_load(text) == made
        assert SECRET not in report(migration)


@pytest.mark.parametrize("data", corpus("migration"))
def test_whatever_has_been_found_is_refused_or_migrated(data):
    attempt(data)


@settings(max_examples=effort(50, 50_000))
@given(mangled_json(SEEDS))
def test_any_values_are_refused_or_become_yaml_that_says_the_same(data):
    attempt(data)


@settings(max_examples=effort(30, 50_000))
@given(mangled([yaml.safe_dump(seed, sort_keys=False).encode() for seed in SEEDS], TOKENS))
def test_any_yaml_is_refused_or_migrated(data):
    attempt(data)


TEMPLATE_TOKENS = [
    *(b"{{", b"}}", b"{{-", b"-}}", b"/*", b"*/", b"(", b")", b"|", b":=", b"\\", b"`", b'"', b"$"),
    *(b" ", b"\n", b"\x00", b"\xc2\xa0", b".", b"secret", b"with", b"end", b"index", b"trimSpace"),
]


@settings(max_examples=effort(100, 200_000))
@given(mangled([form.encode() for form in FORMS], TEMPLATE_TOKENS))
def test_a_template_prints_one_field_whatever_became_of_it_or_is_refused(data):
    try:
        lookup = read_template(data.decode("utf-8", "replace"))
    except NotConvertible as refused:
        judge(not_convertible([str(refused)]))
        return
    place = f"index .Data {_keys(lookup)}"
    again = f'{{{{ with secret "{lookup.path}" }}}}{{{{ {place} }}}}{{{{ end }}}}'
    if not {*'"\\\n'} & {*lookup.path, *lookup.field}:
        assert read_template(again) == lookup


def _keys(lookup) -> str:
    return f'"data" "{lookup.field}"' if lookup.kv_version == 2 else f'"{lookup.field}"'
