"""What the kernel tells of mounts: memory, parts of volumes, one over another."""

from __future__ import annotations

from pathlib import Path

from certagent.cli.diagnosis.mounts import Mount, covering, mounts, parsed

CA = "/var/lib/kubelet/pods/9f3a/volumes/kubernetes.io~empty-dir/ca"
TABLE = rf"""
21 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a
30 21 0:50 / /etc/istio-ca rw,relatime shared:7 master:1 - tmpfs tmpfs rw,size=1024k
31 21 0:51 /sub /etc/part rw - tmpfs tmpfs rw
32 21 8:1 {CA} /etc/disk rw - ext4 /dev/sda1 rw
33 21 8:1 {CA}/sub /etc/sub rw - ext4 /dev/sda1 rw
34 21 0:52 / /mnt/with\040blank rw - tmpfs tmpfs rw
nonsense
""".strip()


def at(point: str) -> Mount:
    (found,) = [each for each in parsed(TABLE) if each.point == point]
    return found


def test_a_memory_backed_volume_is_memory_and_whole():
    assert at("/etc/istio-ca") == Mount("/etc/istio-ca", "/", "tmpfs")
    assert at("/etc/istio-ca").is_memory
    assert not at("/etc/istio-ca").is_part


def test_a_volume_on_disk_is_whole_and_no_memory():
    assert not at("/etc/disk").is_memory
    assert not at("/etc/disk").is_part


def test_a_subpath_shows_in_the_root_of_the_mount():
    assert at("/etc/part").is_part
    assert at("/etc/sub").is_part


def test_the_file_system_of_the_container_is_no_part():
    assert not at("/").is_part


def test_blanks_are_escaped():
    assert at("/mnt/with blank")


def test_what_is_no_mount_is_left_out():
    assert "nonsense" not in {each.point for each in parsed(TABLE)}


def test_a_path_lies_on_the_nearest_mount_above_it():
    assert covering(Path("/etc/istio-ca/sub/dir"), parsed(TABLE)) == at("/etc/istio-ca")
    assert covering(Path("/etc/istio-cacerts"), parsed(TABLE)) == at("/")


def test_of_two_mounts_at_one_point_the_later_hides_the_earlier():
    table = (Mount("/", "/", "ext4"), Mount("/etc", "/a", "ext4"), Mount("/etc", "/b", "tmpfs"))

    found = covering(Path("/etc/istio-ca"), table)

    assert found is not None
    assert found.root == "/b"


def test_links_are_followed_to_the_mount(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real = Mount(str(tmp_path.resolve() / "real"), "/", "tmpfs")

    assert covering(tmp_path / "link", (Mount("/", "/", "ext4"), real)) == real


def test_without_a_table_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr("certagent.cli.diagnosis.mounts._TABLE", tmp_path / "none")

    assert mounts() == ()
    assert covering(tmp_path, ()) is None


def test_this_machine_has_a_root():
    assert covering(Path("/"), mounts()) is not None
