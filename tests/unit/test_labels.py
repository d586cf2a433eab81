"""Look-up tables: classes, mirror images, and what other labels are read as."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from iqt.errors import UserError
from iqt.io.files import read_table, write_table
from iqt.io.labels import COLUMNS, LabelTable, read_lut

TABLE = LabelTable(ids=(0, 2, 16, 41), mirrors=(0, 3, 2, 1))
"""Background, left, midline, right."""
FASTSURFER = (
    *(2, 4, 5, 7, 8, *range(10, 19), 24, 26, 28, 31, 41, 43, 44, 46, 47, *range(49, 55), 58, 60, 63, 77),
    *(base + area for base in (1000, 2000) for area in range(2, 36) if area not in (4, 32, 33)),
)
"""Its 95 labels, from its documentation."""


def write_lut(path: Path, rows: list[tuple]) -> Path:
    names = ("index", "mirror", "merges")[: len(rows[0])]
    write_table(path, [{**dict(zip(names, row, strict=True)), "name": str(row[0])} for row in rows])
    return path


def test_classes_and_labels_go_back_and_forth(tmp_path):
    table = read_lut(write_lut(tmp_path / "lut.tsv", [(41, "2"), (2, "41"), (16, "16")]))
    assert table == TABLE
    labels = np.array([[41, 0], [16, 2]])
    classes = table.to_classes(labels, "x")
    assert classes.max() < table.n_classes
    np.testing.assert_array_equal(np.asarray(table.ids)[classes], labels)


def test_merged_classes_join_the_sides_and_nothing_else():
    merged = TABLE.merged
    assert merged[1] == merged[3]
    assert len({merged[0], merged[1], merged[2]}) == TABLE.n_merged == 3
    assert merged[0] == 0
    np.testing.assert_array_equal(merged[list(TABLE.mirrors)], merged)


def test_labels_that_the_table_lacks_are_background_and_listed(capsys):
    assert TABLE.to_classes(np.array([0, 2, 99, 3, -1]), "scan.nii").tolist() == [0, 1, 0, 0, 0]
    assert "warning: scan.nii: labels -1, 3, 99 (3 voxels) are not" in capsys.readouterr().err
    TABLE.to_classes(np.array([0, 2, 41]), "scan.nii")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(2, "41"), (41, "41")], "index 2 has mirror 41"),
        ([(2, "7")], "index 2 has mirror 7"),
        ([(2, "2"), (2, "2")], "index 2 is listed twice"),
        ([(2, "left")], "mirror 'left'"),
        ([(40000, "40000")], "index 40000 is outside"),
        ([(0, "0")], "no structure"),
        ([(2, "2", "31 16"), (16, "16", "")], "index 2 merges 16, which has a row of its own"),
        ([(2, "2", "30;31")], "index 2 merges '30;31'"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read_lut(write_lut(tmp_path / "lut.tsv", rows))


def test_merged_labels_go_to_their_structure_and_shared_ones_to_the_nearest(tmp_path, capsys):
    lut = write_lut(tmp_path / "lut.tsv", [(0, "0", "85"), (2, "41", "30 251-253"), (41, "2", "251-253 255")])
    table, labels = read_lut(lut), np.zeros((9, 3, 1), int)
    labels[0], labels[8] = 2, 41
    labels[1], labels[7] = 30, 255
    labels[2, 1], labels[5, 1], labels[3, 0] = 251, 252, 85
    read = table.to_labels(table.to_classes(labels, "x"))
    assert read[1].tolist() == [[2]] * 3
    assert read[7].tolist() == [[41]] * 3
    assert (read[2, 1, 0], read[5, 1, 0], read[3, 0, 0]) == (2, 41, 0)
    assert not capsys.readouterr().err
    alone = table.to_classes(np.where(labels > 200, labels, 0) * (labels != 255), "x")
    assert not alone.any(), "nothing of either side is there to be near to"
    assert "labels 251, 252 (2 voxels)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "classes", "merged"), [("template", 22, 12), ("aseg", 32, 18), ("fastsurfer", 95, 50)]
)
def test_the_shipped_tables_are_whole(repository, name, classes, merged):
    path = repository / "resources" / f"{name}_dseg.tsv"
    table, rows = read_lut(path), [row for row in read_table(path, required=COLUMNS[:-1]) if row["index"] != "0"]
    assert (len(rows), table.n_classes - 1, table.n_merged - 1) == (classes, classes, merged)
    assert len({row["name"] for row in rows}) == len({row["abbreviation"] for row in rows}) == classes
    by_index = {row["index"]: row for row in rows}
    for row in rows:
        assert int(row["color"].removeprefix("#"), 16) >= 0
        twin = by_index[row["mirror"]]
        sides = {row["hemisphere"], twin["hemisphere"]}
        assert sides == ({"n/a"} if twin is row else {"L", "R"}), row["name"]
        assert twin["color"] == row["color"]
    if name == "fastsurfer":
        assert set(table.ids) - {0} == set(FASTSURFER)


def test_desikan_killiany_becomes_dkt_as_fastsurfer_reads_it(repository, capsys):
    """Rows of voxels: an area that DKT lacks between its neighbours, corpus callosum, odd labels."""
    table = read_lut(repository / "resources" / "fastsurfer_dseg.tsv")

    def read(*labels):
        return table.to_labels(table.to_classes(np.array(labels)[:, None, None], "x"))[:, 0, 0].tolist()

    assert read(1030, 1001, 1001, 1015) == [1030, 1030, 1015, 1015], "banks of the superior temporal sulcus"
    assert read(2028, 2032, 2024) == [2028, 2028, 2024], "frontal pole: never precentral, however near"
    assert read(1009, 1033, 2009) == [1009, 1009, 2009], "temporal pole: its own hemisphere"
    assert read(2022, 2000, 0) == [2022, 2022, 0], "cortex without a name"
    assert read(2, 251, 0, 255, 41) == [2, 2, 0, 41, 41], "corpus callosum"
    assert read(78, 80, 30, 62, 72, 85, 29) == [77, 77, 2, 41, 24, 0, 0]
    assert not capsys.readouterr().err
    assert read(3, 42, 2) == [0, 0, 2], "cortex of an aseg has no area"
    assert "labels 3, 42" in capsys.readouterr().err


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("fastsurfer", "hcp_layout/HCP_1200/900002/T1w/aparc+aseg.nii.gz"),
        ("aseg", "hcp_layout/HCP_1200/900002/T1w/aparc+aseg.nii.gz"),
        ("aseg", "hcp_layout/HCP_1200/900001/T1w/aparc+aseg.nii.gz"),
        ("aseg", "label_maps/sub-01_dseg.nii.gz"),
    ],
)
def test_every_label_of_a_real_map_is_known(repository, capsys, name, path):
    folder = os.environ.get("IQT_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("IQT_REAL_DATA names no folder of real scans")
    table = read_lut(repository / "resources" / f"{name}_dseg.tsv")
    labels = np.asarray(nib.load(Path(folder, path)).dataobj)[::2, ::2, ::2]
    classes = table.to_classes(labels, path)
    assert not capsys.readouterr().err
    assert len(np.unique(classes)) >= 0.9 * table.n_classes
    assert (classes[labels == 0] == 0).all()


def test_nearest_is_meant_in_millimetres():
    """Two structures beside a shared label: two voxels of 1 mm away, and one of 5 mm."""
    table = LabelTable((0, 2, 41), (0, 2, 1), {251: (1, 2)})
    labels = np.zeros((3, 1, 2), np.int32)
    labels[0, 0, 0], labels[2, 0, 0], labels[2, 0, 1] = 2, 251, 41
    assert table.to_classes(labels, "x")[2, 0, 0] == 2
    assert table.to_classes(labels, "x", (1, 1, 5))[2, 0, 0] == 1


def test_every_unknown_label_is_listed(capsys):
    LabelTable((0, 2), (0, 1)).to_classes(np.arange(100, 130).reshape(30, 1, 1), "x")
    said = capsys.readouterr().err
    assert all(str(label) in said for label in range(100, 130))
