"""What ships with the package: the parcellator reads a brain, left stays left, and an installed package has it all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from iqt import __version__
from iqt.cli import app
from iqt.errors import UserError
from iqt.io.files import checksum, read_json, read_table
from iqt.io.labels import LabelTable, read_lut
from iqt.io.shipped import PARCELLATOR, PARCELLATOR_TABLE, RESOURCES, table_file
from iqt.io.volumes import Volume, read_volume, save_volume
from iqt.parcellate.reader import Reader, load_reader
from iqt.parcellate.volumes import table_of, write_agreement, write_structures
from people import person

WHITE, CORTEX = (2, 41), (3, 42)


@pytest.fixture(scope="module")
def table() -> LabelTable:
    return read_lut(table_file(PARCELLATOR_TABLE))


@pytest.fixture(scope="module")
def reader() -> Reader:
    return load_reader(PARCELLATOR, "auto")


@pytest.fixture(scope="module")
def brain() -> Volume:
    """A template person at 2 mm, on the intensity scale."""
    made = person("901", 2.0)
    return Volume((made.T1w / np.percentile(made.T1w[made.mask], 99.5)).astype(np.float32), made.affine)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def test_its_card_says_what_it_is(table: LabelTable) -> None:
    weights, card = PARCELLATOR / "model.safetensors", read_json(PARCELLATOR / "model.json")
    assert weights.stat().st_size <= 10_000_000
    assert checksum(weights) == card["weights_sha256"]
    assert tuple(card["ids"]) == table.ids
    assert tuple(card["mirrors"]) == table.mirrors
    assert card["data"]["licence"] == "Apache-2.0"
    assert len(card["data"]["train"]) == 12
    assert 0 < card["metrics"]["val_dice"] < 1
    assert len(card["recipe"]["commit"]) == 40


def test_it_reads_a_brain(reader: Reader, brain: Volume) -> None:
    made = person("901", 2.0)
    labels = reader.read(brain, made.mask)
    for ids in (WHITE, CORTEX, (4, 43), (10, 49)):
        assert dice(np.isin(labels, ids), np.isin(made.dseg, ids)) > 0.5, ids
    for name, ids in (("left", range(2, 40)), ("right", range(41, 64))):
        whole = [index for index in ids if index in np.unique(made.dseg)]
        assert dice(np.isin(labels, whole), np.isin(made.dseg, whole)) > 0.8, name


def flipped(labels: np.ndarray, table: LabelTable) -> np.ndarray:
    """Mirrored along the first axis, each label that of the other side."""
    mirror = dict(zip(table.ids, (table.ids[m] for m in table.mirrors), strict=True))
    turned = labels[::-1]
    return np.vectorize(mirror.get, otypes=[np.int16])(turned)


def follows(reader: Reader, volume: Volume, mask: np.ndarray, table: LabelTable) -> None:
    """Labels of a mirrored scan are those of the scan, mirrored: sides change, and nothing stays on the old one."""
    labels = reader.read(volume, mask)
    again = reader.read(volume._replace(data=np.ascontiguousarray(volume.data[::-1])), mask[::-1])
    wanted = flipped(labels, table)
    lateral = np.isin(wanted, [i for i, m in zip(table.ids, table.mirrors, strict=True) if table.ids[m] != i])
    assert dice(again == 2, wanted == 2) > 0.9
    assert (again == wanted)[lateral].mean() > 0.85
    swapped = flipped(wanted, table)[::-1]
    assert (again == swapped)[lateral & (swapped != wanted)].mean() < 0.03


def test_left_and_right_follow_a_mirrored_scan(reader: Reader, brain: Volume, table: LabelTable) -> None:
    follows(reader, brain, person("901", 2.0).mask, table)


@pytest.mark.slow
@pytest.mark.real_data
def test_left_and_right_follow_a_mirrored_real_scan(reader: Reader, real: Path, table: LabelTable) -> None:
    found = read_volume(next(iter(sorted((real / "ds002748").glob("sub-*/anat/*_T1w.nii.gz")))))
    ras = nib.as_closest_canonical(nib.Nifti1Image(found.data, found.affine))
    volume = Volume(np.asarray(ras.dataobj), ras.affine)
    mask = volume.data > 0
    scaled = volume.data / np.percentile(volume.data[mask], 99.5)
    follows(reader, volume._replace(data=scaled.astype(np.float32)), mask, table)


def test_the_command_needs_no_model_and_says_what_it_found(tmp_path: Path) -> None:
    made = person("901", 2.0)
    image = nib.Nifti1Image(made.T1w, made.affine).as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(made.affine), nib.orientations.axcodes2ornt(("P", "S", "R")))
    )
    nib.save(image, tmp_path / "T1w.nii.gz")
    words = ["parcellate", str(tmp_path / "T1w.nii.gz"), str(tmp_path / "out" / "sub-1_dseg.nii.gz")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    label_map = nib.load(tmp_path / "out" / "sub-1_dseg.nii.gz")
    labels = np.asarray(label_map.dataobj)
    assert labels.shape == image.shape
    np.testing.assert_allclose(label_map.affine, image.affine, atol=1e-4)
    volumes = {
        int(row["index"]): float(row["volume_mm3"]) for row in read_table(tmp_path / "out/sub-1_dseg_volumes.tsv")
    }
    assert set(volumes) == set(read_lut(table_file("aseg")).ids) - {0}
    for index, volume in volumes.items():
        assert volume == pytest.approx(8 * (labels == index).sum(), abs=0.1), index
    names = {int(row["index"]): row["name"] for row in read_table(tmp_path / "out/sub-1_dseg.tsv")}
    assert names[17] == "Left-Hippocampus"
    record = read_json(tmp_path / "out/sub-1_dseg.json")
    assert record["status"] == "ok"
    assert record["version"].endswith(checksum(PARCELLATOR / "model.safetensors")[:8])


@pytest.mark.parametrize(
    ("out", "more", "words"),
    [
        ("labels", [], "must end in .nii.gz or .nii"),
        ("labels.tsv", [], "must end in .nii.gz or .nii"),
        ("T1w.nii.gz", [], "named twice among inputs and outputs"),
        ("other.nii.gz", ["--against", "other.nii.gz"], "named twice among inputs and outputs"),
        ("taken.nii.gz", [], "no record of a label map"),
        ("other.nii.gz", [], "other.nii.gz: is there already, and no other.json says"),
        ("short.nii.gz", ["--lut", "short.tsv"], "short.tsv: is named twice"),
        ("labels.nii.gz", ["--lut", "short.tsv"], "has no row for label"),
        ("labels.nii.gz", ["--lut", "words.tsv"], "both must be numbers"),
        ("labels.nii.gz", ["--against", "absent.nii.gz"], "absent.nii.gz"),
        ("labels.nii.gz", ["--settings", "{}"], "is for --engine fastsurfer"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, more: list[str], words: str
) -> None:
    made = person("901")
    save_volume(tmp_path / "T1w.nii.gz", made.T1w, made.affine)
    save_volume(tmp_path / "other.nii.gz", made.dseg, made.affine)
    (tmp_path / "taken.json").write_text('{"EchoTime": 0.01}')
    for name, label in (("short", "2"), ("words", "two")):
        (tmp_path / f"{name}.tsv").write_text(f"index\tmirror\tname\n{label}\t{label}\tWhite\n")
    before = {path.name: checksum(path) for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["parcellate", "T1w.nii.gz", out, *more])
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
    assert {path.name: checksum(path) for path in tmp_path.iterdir()} == before


def test_two_label_maps_are_compared(tmp_path: Path) -> None:
    made = person("901", 2.0)
    save_volume(tmp_path / "T1w.nii.gz", made.T1w, made.affine)
    save_volume(tmp_path / "own.nii.gz", made.dseg, made.affine)
    words = [str(tmp_path / name) for name in ("T1w.nii.gz", "labels.nii.gz")]
    done = CliRunner().invoke(app, ["parcellate", *words, "--against", str(tmp_path / "own.nii.gz")])
    assert done.exit_code == 0, done.output
    rows = {int(row["index"]): row for row in read_table(tmp_path / "labels_agreement.tsv")}
    labels = np.asarray(nib.load(tmp_path / "labels.nii.gz").dataobj)
    held = set(np.unique(made.dseg[made.dseg > 0]).tolist())
    for index in held:
        assert float(rows[index]["dice"]) == pytest.approx(dice(labels == index, made.dseg == index), abs=1e-4)
    mean = np.mean([float(rows[index]["dice"]) for index in held])
    assert f"over the {len(held)} structures that it holds: {mean:.3f}" in done.output
    assert set(rows) > held, "what the template's labels do not know is listed, and counts nothing"
    done = CliRunner().invoke(app, ["parcellate", *words])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "labels_agreement.tsv").exists(), "it was of the label map before"


def test_names_are_those_of_the_smallest_table_that_has_all_labels() -> None:
    for name in ("aseg", "template", "fastsurfer"):
        ids = read_lut(table_file(name)).ids
        assert table_of(ids) == table_file(name)
    with pytest.raises(UserError, match="no look-up table"):
        table_of([2, 12345])


def test_nothing_is_said_of_structures_that_a_parcellator_does_not_know(tmp_path: Path) -> None:
    """Left and right hippocampus by the table of 32, of which it knows the left one alone."""
    labels = np.zeros((6, 6, 6), np.int16)
    labels[1:3], labels[3:5] = 17, 53
    knows = np.where(labels == 17, labels, 0)
    lut, volume = table_file("aseg"), Volume(labels, np.eye(4))
    write_structures(tmp_path / "a.nii.gz", knows, np.eye(4), lut, (0, 17))
    assert [row["name"] for row in read_table(tmp_path / "a_volumes.tsv")] == ["Left-Hippocampus"]
    assert write_agreement(tmp_path / "a.nii.gz", knows, labels, tmp_path / "b.nii.gz", volume, lut, (0, 17)) == (1, 1)


def test_a_given_mask_spares_no_check(tmp_path: Path) -> None:
    made = person("901", 2.0)
    save_volume(tmp_path / "T1w.nii.gz", made.T1w, made.affine)
    save_volume(tmp_path / "dseg.nii.gz", made.dseg, made.affine)
    half = made.dseg > 0
    half[half.shape[0] // 3 :] = False
    save_volume(tmp_path / "half.nii.gz", half.astype(np.uint8), made.affine)
    mask = ["--mask", str(tmp_path / "half.nii.gz")]
    done = CliRunner().invoke(app, ["parcellate", str(tmp_path / "dseg.nii.gz"), str(tmp_path / "x.nii.gz"), *mask])
    assert "label map" in str(done.exception)
    done = CliRunner().invoke(app, ["parcellate", str(tmp_path / "T1w.nii.gz"), str(tmp_path / "x.nii.gz"), *mask])
    assert done.exit_code == 0, done.output
    assert any("half.nii.gz: the brain mask holds" in text for text in read_json(tmp_path / "x.json")["warnings"])


def test_a_comparison_that_fails_leaves_nothing(tmp_path: Path) -> None:
    made = person("901", 2.0)
    save_volume(tmp_path / "T1w.nii.gz", made.T1w, made.affine)
    save_volume(tmp_path / "empty.nii.gz", np.zeros_like(made.dseg), made.affine)
    words = [str(tmp_path / name) for name in ("T1w.nii.gz", "labels.nii.gz")]
    done = CliRunner().invoke(app, ["parcellate", *words, "--against", str(tmp_path / "empty.nii.gz")])
    assert "empty.nii.gz: holds no structure" in str(done.exception)
    assert {path.name for path in tmp_path.iterdir()} == {"T1w.nii.gz", "empty.nii.gz"}


def test_a_damaged_model_is_refused(tmp_path: Path, repository: Path) -> None:
    for path in PARCELLATOR.iterdir():
        data = bytearray(path.read_bytes())
        if path.suffix == ".safetensors":
            data[-1] ^= 1
        (tmp_path / path.name).write_bytes(data)
    save_volume(tmp_path / "T1w.nii.gz", person("901").T1w, person("901").affine)
    words = ["parcellate", str(tmp_path / "T1w.nii.gz"), str(tmp_path / "dseg.nii.gz"), "--model", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
    assert not (tmp_path / "dseg.nii.gz").exists()


@pytest.mark.slow
def test_an_installed_package_works_outside_the_checkout(tmp_path: Path, repository: Path) -> None:
    """A wheel in an environment of its own, which has the dependencies but not the checkout."""
    source = tmp_path / "source"  # a build leaves files where it reads
    for name in ("workflow", "resources"):
        shutil.copytree(repository / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True, cwd=tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    paths = sysconfig.get_paths(vars={"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")})
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        paths["purelib"],
    ]
    subprocess.run([*install, *tmp_path.glob("iqt-*.whl")], check=True)
    # Folders in a .pth file are searched, but .pth files in them, such as the checkout's own, are not.
    Path(paths["purelib"], "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    made = person("901", 2.0)
    save_volume(tmp_path / "T1w.nii.gz", made.T1w, made.affine)
    code = "import iqt.cli, sys; sys.argv[0] = 'iqt'; iqt.cli.main()"

    def iqt(*words: str) -> str:
        command = [tmp_path / "env/bin/python", "-c", code, *words]
        alone = os.environ | {"PYTHONPATH": ""}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=alone)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert iqt("--version").split() == ["iqt", __version__]
    assert "t1w-unet" in iqt("models")
    assert "a phantom in" in iqt("doctor")
    iqt("parcellate", "T1w.nii.gz", "dseg.nii.gz")
    assert "1 of 1 scans enhanced" in iqt("study", "T1w.nii.gz", "study", "--no-parcellate")
    assert (tmp_path / "study" / "study.html").is_file()
    assert (np.asarray(nib.load(tmp_path / "dseg.nii.gz").dataobj) > 0).any()
    installed = Path(paths["purelib"], "iqt", "resources")
    assert not installed.is_symlink()
    for path in sorted(RESOURCES.rglob("*")):
        if path.is_file():
            assert (installed / path.relative_to(RESOURCES)).read_bytes() == path.read_bytes(), path
