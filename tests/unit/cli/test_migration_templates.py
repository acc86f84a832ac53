"""Templates: those that print one field of one secret are read, and nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certagent.cli.migration.templates import Lookup, NotConvertible, read_template

V1 = Lookup("kv/certs", "ca_key", 1)
V2 = Lookup("kv/data/certs", "ca_key", 2)


@pytest.mark.parametrize(
    ("text", "lookup"),
    [
        ('{{- with secret "kv/certs" -}}\n{{ .Data.ca_key }}\n{{ end -}}', V1),
        ('{{ with secret "kv/certs" }}{{ .Data.ca_key }}{{ end }}\n', V1),
        ('{{with secret "kv/certs"}}{{.Data.ca_key}}{{end}}', V1),
        ("{{ with secret `kv/certs` }}{{- .Data.ca_key -}}{{- end -}}", V1),
        ('{{\n  with secret "kv/certs"\n}}\t{{ .Data.ca_key }}\r\n{{ end }}', V1),
        ('{{- with secret "kv/data/certs" -}}{{ .Data.data.ca_key }}{{- end }}', V2),
        ('{{ with $s := secret "kv/certs" }}{{ $s.Data.ca_key }}{{ end }}', V1),
        ('{{ with $s := secret "kv/certs" }}{{ .Data.ca_key }}{{ end }}', V1),
        ('{{ (secret "kv/certs").Data.ca_key }}', V1),
        ('{{ ((secret "kv/data/certs").Data.data.ca_key) }}', V2),
        ('{{/* istiod\'s "key" }} */}}{{ with secret "kv/certs" }}{{ .Data.ca_key }}{{ end }}', V1),
        ('{{ with secret "kv/certs" }}{{- /* the key */ -}}{{ .Data.ca_key }}{{ end }}', V1),
    ],
)
def test_the_common_forms_print_one_field(text, lookup):
    assert read_template(text) == lookup


@pytest.mark.parametrize(
    "value",
    [
        'index .Data "ca-key"',
        '(index .Data "ca-key")',
    ],
)
def test_a_field_with_a_dash_is_printed_by_index(value):
    text = f'{{{{ with secret "kv/certs" }}}}{{{{ {value} }}}}{{{{ end }}}}'

    assert read_template(text) == Lookup("kv/certs", "ca-key", 1)


@pytest.mark.parametrize("value", ['index .Data.data "ca-key"', 'index .Data "data" "ca-key"'])
def test_index_reaches_a_field_of_kv_v2_in_two_ways(value):
    text = f'{{{{ with secret "kv/data/certs" }}}}{{{{ {value} }}}}{{{{ end }}}}'

    assert read_template(text) == Lookup("kv/data/certs", "ca-key", 2)


@pytest.mark.parametrize(
    "value",
    [
        ".Data.ca_key | trimSpace",
        '.Data.ca_key | trimSuffix "\\n"',
        '.Data.ca_key | trim " \\t\\r\\n" | trimSpace',
        "trimSpace .Data.ca_key",
        ".Data.ca_key | sprig_trim",
    ],
)
def test_taking_white_space_off_is_harmless(value):
    text = f'{{{{ with secret "kv/certs" }}}}{{{{ {value} }}}}{{{{ end }}}}'

    assert read_template(text) == V1


def test_other_delimiters_are_read_with():
    text = '[[ with secret "kv/certs" ]][[ .Data.ca_key ]][[ end ]]'

    assert read_template(text, "[[", "]]") == V1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "prints no field"),
        ("a key", "prints text of its own"),
        ('Key: {{ with secret "kv/certs" }}{{ .Data.ca_key }}{{ end }}', "text of its own"),
        ('{{ with secret "kv/certs" }}{{ .Data.a }}{{ .Data.b }}{{ end }}', "more than print one"),
        ('{{ with secret "kv/certs" }}{{ .Data.a }}{{ else }}none{{ end }}', "text of its own"),
        (
            '{{ with secret "kv/certs" }}{{ range $k, $v := .Data }}{{ $v }}{{ end }}{{ end }}',
            "','",
        ),
        ('{{ with secret "kv/certs" }}{{ .Data.key | base64Decode }}{{ end }}', "`base64Decode`"),
        ('{{ with secret "kv/certs" }}{{ .Data.key | trim "k" }}{{ end }}', '`trim "k"`'),
        ('{{ with secret "kv/certs" }}{{ .Data.key | }}{{ end }}', "`nothing`"),
        ('{{ with secret "kv/certs" }}{{ printf "%s" .Data.key }}{{ end }}', "`printf"),
        ('{{ with secret "kv/certs" }}{{ .Data | toJSON }}{{ end }}', "`toJSON`"),
        ('{{ with secret "kv/certs" }}{{ .Data }}{{ end }}', "prints .Data,"),
        ('{{ with secret "kv/certs" }}{{ .Data.data }}{{ end }}', "prints .Data.data,"),
        ('{{ with secret "kv/certs" }}{{ .Data.metadata.version }}{{ end }}', "no field"),
        ('{{ with secret "kv/certs" }}{{ .LeaseID }}{{ end }}', "prints .LeaseID,"),
        ('{{ with secret "kv/certs" }}{{ .Data.ca-key }}{{ end }}', "'-' was not expected"),
        ('{{ with secret "kv/certs" }}{{ $s.Data.key }}{{ end }}', "not of a secret that it reads"),
        ('{{ with secret "kv/certs" }}{{ index .Data }}{{ end }}', "`index .Data`"),
        ("{{ .Data.key }}", "not of a secret that it reads"),
        ('{{ with secret "pki/issue/x" "ttl=1h" }}{{ .Data.key }}{{ end }}', "writes to Vault"),
        ('{{ with pkiCert "pki/issue/x" "ttl=1h" }}{{ .Key }}{{ end }}', "writes to Vault"),
        ('{{ pkiCert "pki/issue/x" "ttl=1h" }}', "writes to Vault"),
        ('{{ with file "/etc/key" }}{{ .Data.key }}{{ end }}', "not `secret` and a path"),
        ('{{ if secret "kv/certs" }}{{ .Data.key }}{{ end }}', "not `with secret`"),
        ('{{ with secret "kv/\\x41" }}{{ .Data.key }}{{ end }}', "the escape"),
        ('{{ with secret "kv/certs }}{{ .Data.key }}{{ end }}', "was not expected"),
        ('{{ with secret "kv/certs"', "its end was not expected"),
        ("{{/* a comment", "a comment is not closed"),
        ("{{ " + "( " * 500, "more than print one field"),
        ("{{ .Data.key }}" * 500, "more than 4000 characters"),
    ],
)
def test_any_other_template_is_named_with_the_reason(text, why):
    with pytest.raises(NotConvertible) as refused:
        read_template(text)

    assert why in str(refused.value)


PIECES = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{{-",
            "-}}",
            "/*",
            "*/",
            '"',
            "`",
            "(",
            ")",
            ").Data.x",
            "|",
            ":=",
            "\\",
            "-",
        ),
        *(
            " ",
            "\n",
            "with",
            "secret",
            "index",
            "end",
            "trim",
            "$s",
            ".",
            ".Data",
            ".Data.x",
            '"a/b"',
        ),
    ]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=40).map("".join), PIECES, PIECES)
def test_no_text_does_anything_but_print_a_field_or_be_refused(text, left, right):
    for delimiters in ((), (left, right)):
        try:
            lookup = read_template(text, *delimiters)
        except NotConvertible:
            continue
        assert lookup.field
        assert lookup.kv_version in {1, 2}


NAMES = st.from_regex("[a-z_][a-z0-9_]{0,10}", fullmatch=True).filter(lambda name: name != "data")
SPACE = st.text(" \t\r\n", max_size=3)


@given(NAMES, NAMES, st.lists(SPACE, min_size=7, max_size=7), st.booleans(), st.booleans())
def test_white_space_and_trim_markers_change_nothing(mount, field, space, trims, second):
    left, right = ("{{- ", " -}}") if trims else ("{{", "}}")
    place = f".Data.data.{field}" if second else f".Data.{field}"
    a, b, c, d, e, f, g = space
    text = (
        f'{a}{left}{b}with secret "{mount}/certs"{c}{right}{d}{left}{place}{right}'
        f"{e}{left}end{f}{right}{g}"
    )

    assert read_template(text) == Lookup(f"{mount}/certs", field, 2 if second else 1)
