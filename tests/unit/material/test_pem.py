"""PEM: what Go reads is read, and what Go passes over is refused by name."""

from __future__ import annotations

import base64
import binascii

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from certagent.material import pem
from certagent.material.finding import Severity
from certagent.material.raw import MAX_PART_BYTES

DER = bytes(range(100))
ONE = pem.encode("CERTIFICATE", DER)
TWO = pem.encode("CERTIFICATE", DER[::-1])


def read(data: bytes) -> list[bytes]:
    blocks, findings = pem.decode(data, "chain")
    assert findings == ()
    return [block.der for block in blocks]


def codes(data: bytes) -> list[str]:
    _, findings = pem.decode(data, "chain")
    assert all(each.severity is Severity.ERROR and each.part == "chain" for each in findings)
    return [each.code for each in findings]


def go_decode(data: bytes) -> list[tuple[str, bytes]]:
    """All blocks that encoding/pem.Decode finds, by the algorithm of its source."""
    blocks = []
    while (found := go_next(data)) is not None:
        label, der, headers, data = found
        if not headers:  # AppendCertsFromPEM passes over blocks with headers
            blocks.append((label, der))
    return blocks


def go_line(data: bytes) -> tuple[bytes, bytes]:
    line, newline, rest = data.partition(b"\n")
    if newline:
        line = line.removesuffix(b"\r")
    return line.rstrip(b" \t"), rest


def go_next(rest: bytes):
    while True:
        if rest.startswith(b"-----BEGIN "):
            rest = rest[11:]
        else:
            _, found, rest = rest.partition(b"\n-----BEGIN ")
            if not found:
                return None
        label, rest = go_line(rest)
        if label.endswith(b"-----"):
            headers, rest = go_headers(rest)
            if not rest:
                return None
            body, after = go_body(label[:-5], rest, headers)
            if body:
                return label[:-5].decode("latin-1"), body, headers, after


def go_headers(rest: bytes) -> tuple[bool, bytes]:
    headers = False
    while rest and b":" in go_line(rest)[0]:
        headers, rest = True, go_line(rest)[1]
    return headers, rest


def go_body(label: bytes, rest: bytes, headers: bool) -> tuple[bytes, bytes]:
    """What stands before the END, decoded, and what follows; nothing where it is no block."""
    if not headers and rest.startswith(b"-----END "):
        at, trailer = 0, rest[9:]
    else:
        at = rest.find(b"\n-----END ")
        trailer = rest[at + 10 :]
    ended = at >= 0 and trailer.startswith(label + b"-----")
    if not ended or go_line(trailer[len(label) + 5 :])[0]:
        return b"", rest
    try:
        text = rest[:at].translate(None, delete=b" \t\r\n")
        return binascii.a2b_base64(text, strict_mode=True), go_line(rest[at + 9 :])[1]
    except binascii.Error:
        return b"", rest


def test_blocks_are_read_in_order():
    assert read(ONE + TWO) == [DER, DER[::-1]]


def test_encoding_breaks_lines_at_64_columns_and_ends_with_a_newline():
    lines = ONE.split(b"\n")

    assert lines[0] == b"-----BEGIN CERTIFICATE-----"
    assert [len(line) for line in lines[1:-2]] == [64, 64, 8]
    assert lines[-2:] == [b"-----END CERTIFICATE-----", b""]


@pytest.mark.parametrize(
    "untidy",
    [
        pytest.param(ONE.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(ONE.rstrip(), id="no newline at the end"),
        pytest.param(b"subject=/O=Istio\n\n" + ONE, id="text before"),
        pytest.param(ONE + b"\nthe end", id="text after"),
        pytest.param(ONE.replace(b"\n", b" \t\n"), id="white space at line ends"),
        pytest.param(ONE.replace(b"\n", b"\n\n"), id="blank lines"),
        pytest.param(b"\n".join([ONE[:28], b" " + ONE[28:]]), id="white space in the base64"),
    ],
)
def test_what_go_takes_in_its_stride_is_taken(untidy):
    assert read(untidy) == [DER]
    assert go_decode(untidy) == [("CERTIFICATE", DER)]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        pytest.param(ONE.rstrip() + TWO, "pem-glued", id="glued"),
        pytest.param(ONE + b"  " + TWO, "pem-indented", id="indented BEGIN"),
        pytest.param(b"\xef\xbb\xbf" + ONE, "pem-indented", id="byte-order mark"),
        pytest.param(ONE[:-30], "pem-truncated", id="no END"),
        pytest.param(ONE[40:], "pem-truncated", id="no BEGIN"),
        pytest.param(ONE[:60] + b"\n" + TWO, "pem-truncated", id="BEGIN within a block"),
        pytest.param(ONE.replace(b"END CERT", b"END cert"), "pem-malformed", id="other END"),
        pytest.param(ONE.replace(b"-----END", b" -----END"), "pem-malformed", id="indented END"),
        pytest.param(ONE.rstrip() + b" x\n", "pem-malformed", id="text after END"),
        pytest.param(ONE.replace(b"TE-----\nA", b"TE---\nA"), "pem-malformed", id="short BEGIN"),
        pytest.param(ONE.replace(b"\n", b" "), "pem-malformed", id="newlines became spaces"),
        pytest.param(ONE.replace(b"\n", b"\\n"), "pem-escaped", id="newlines escaped"),
        pytest.param(ONE.replace(b"AAEC", b"AA=C"), "pem-malformed", id="not base64"),
        pytest.param(
            b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            "pem-malformed",
            id="nothing between",
        ),
        pytest.param(ONE.replace(b"\n", b"\r"), "pem-malformed", id="CR alone"),
        pytest.param(base64.b64encode(ONE), "pem-encoded-twice", id="base64 of PEM"),
        pytest.param(DER, "pem-missing", id="DER"),
        pytest.param(b" " * (MAX_PART_BYTES + 1), "part-too-large", id="over 1 MiB"),
        pytest.param(ONE * (pem.MAX_BLOCKS + 1), "too-many-blocks", id="too many"),
    ],
)
def test_what_go_passes_over_is_one_finding(broken, code):
    assert codes(broken) == [code]


def test_headers_are_kept_for_the_part_to_judge():
    first, rest = ONE.split(b"\n", 1)
    headed = b"\n".join([first, b"Proc-Type: 4,ENCRYPTED", b"DEK-Info: AES", b"", rest])

    (block,), findings = pem.decode(headed, "private_key")

    assert findings == ()
    assert block.headers == ("Proc-Type: 4,ENCRYPTED", "DEK-Info: AES")


def test_white_space_alone_is_no_block_and_no_finding():
    assert pem.decode(b" \n\r\n\t", "crls") == ((), ())


def test_all_faults_of_a_part_are_told():
    assert codes(ONE[:-30] + b"\n" + ONE.replace(b"AAEC", b"AA=C")) == [
        "pem-truncated",
        "pem-malformed",
    ]


def test_as_many_blocks_as_the_limit_are_read():
    assert len(read(ONE * pem.MAX_BLOCKS)) == pem.MAX_BLOCKS


def test_a_block_has_no_repr_of_its_content():
    (block,), _ = pem.decode(ONE, "private_key")

    assert repr(block) == "Block(label='CERTIFICATE')"


pieces = st.sampled_from(
    [
        *(b"-----BEGIN ", b"-----END ", b"-----", b"CERTIFICATE", b"X", b"\n", b"\r\n", b"\r"),
        *(b" ", b"\t", b":", b"=", b"AAEC", b"\xff", b"\\n", ONE, TWO.rstrip(), ONE[:60]),
    ]
)


@given(st.lists(pieces, max_size=30).map(b"".join))
@example(b"-----BEGIN X-----\n\n-----END X-----\n" + ONE)
def test_what_is_taken_without_a_finding_is_what_go_reads(data):
    blocks, findings = pem.decode(data, "chain")

    if not findings:
        plain = [(block.label, block.der) for block in blocks if not block.headers]
        assert plain == go_decode(data)


@given(st.binary())
def test_any_bytes_end_in_blocks_or_findings(data):
    pem.decode(data, "roots")


@given(st.lists(st.binary(min_size=1), max_size=5))
def test_what_is_encoded_is_decoded(ders):
    assert read(b"".join(pem.encode("CERTIFICATE", der) for der in ders)) == ders
