"""The template cohort: people are reproducible, differ, and are anatomically sound."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from iqt.cohort import anatomy, build, deform, participants, template
from iqt.cohort.split import template_scans
from iqt.config import Split, Template
from iqt.errors import UserError
from iqt.io.batch import read_list
from iqt.io.files import read_json, read_table, write_table
from iqt.io.naming import anat

SETTINGS = Template(voxel_size=4.0, deformation=3.0)
SEED = 1
SCANS = ("sub-test002", "sub-test001")


@pytest.fixture(scope="module")
def people():
    return {scan: template.make_person(scan, SEED, SETTINGS) for scan in SCANS}


@pytest.fixture(scope="module")
def lut():
    return read_table(anatomy.LUT, required=("index", "name", "abbreviation", "color", "hemisphere", "mirror"))


@pytest.fixture(scope="module")
def map_on_grid():
    """A person's displacement on the lattice, as splines and its Jacobian, at settings that deform more than usual."""
    settings = Template(voxel_size=4.0, deformation=6.0)
    known = anatomy.load_anatomy()
    axes = deform.lattice(known.box(template.MARGIN_MM), template.LATTICE_MM)
    velocity, _ = template.draw_velocity(np.random.default_rng(3), known, axes, settings)
    return axes, velocity


def test_more_people_change_nobody():
    few = template_scans(Split(train=2, val=1, test=1))
    many = template_scans(Split(train=5, val=3, test=1200))
    assert few == {"train": ["sub-train001", "sub-train002"], "val": ["sub-val001"], "test": ["sub-test001"]}
    assert all(many[name][: len(scans)] == scans for name, scans in few.items())
    names = [scan for scans in many.values() for scan in scans]
    assert len(set(names)) == len(names) == 1208


def test_same_seed_same_bits(tmp_path, monkeypatch, people):
    build.build_template(SCANS[1:], tmp_path / "alone", "T1w", SEED, SETTINGS)
    monkeypatch.setattr(build, "make_person", lambda scan, seed, settings: people[scan])  # drawn after somebody else
    build.build_template(SCANS, tmp_path / "company", "T1w", SEED, SETTINGS)
    files = sorted(anat(tmp_path / "alone", SCANS[1], "x").parent.iterdir())
    assert len(files) == 7
    for path in files:
        assert path.read_bytes() == anat(tmp_path / "company", SCANS[1], "x").with_name(path.name).read_bytes(), path


def test_people_differ(people):
    first, second = people.values()
    both = first.mask & second.mask
    assert np.corrcoef(first.T1w[both], second.T1w[both])[0, 1] < 0.9
    overlap = 2 * both.sum() / (first.mask.sum() + second.mask.sum())
    assert 0.85 < overlap < 0.99
    for tissue in ("wm", "gm", "csf"):
        volumes = [getattr(person, tissue).sum() for person in people.values()]
        assert np.std(volumes) / np.mean(volumes) > 0.01
    assert len({person.drawn["white_matter_intensity"] for person in people.values()}) == len(people)


def test_another_seed_is_another_person(people):
    other = template.make_person(SCANS[0], SEED + 1, SETTINGS)
    assert (other.mask != people[SCANS[0]].mask).mean() > 0.01


def test_texture_and_bias_leave_the_shape_alone(people):
    plain = template.make_person(SCANS[0], SEED, SETTINGS.model_copy(update={"texture": 0.0, "bias_field": 0.0}))
    assert np.array_equal(plain.dseg, people[SCANS[0]].dseg)
    pure = plain.wm > 0.99
    assert plain.T1w[pure].std() / plain.T1w[pure].mean() < 0.01
    assert people[SCANS[0]].T1w[pure].std() / people[SCANS[0]].T1w[pure].mean() > 0.02


def numerical_jacobian(displacement, points):
    moved = np.stack(np.meshgrid(*points, indexing="ij")) + np.stack([part.on_grid(points) for part in displacement])
    step = points[0][1] - points[0][0]
    slopes = np.stack([np.stack(np.gradient(part, step)) for part in moved])
    return np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)))


def test_jacobian_is_positive_and_right(map_on_grid):
    axes, velocity = map_on_grid
    points = [np.arange(axis[0], axis[-1], 2.0) for axis in axes]
    displacement, jacobian, shrunk = template.flow(velocity, axes, points)
    assert shrunk == 0
    assert numerical_jacobian(displacement, points).min() > 0
    near = [np.arange(-20, 20, 0.5) for _ in axes]  # differences are exact enough where the step is small
    difference = numerical_jacobian(displacement, near) - deform.jacobian(displacement, near)
    assert np.abs(difference[1:-1, 1:-1, 1:-1]).max() < 0.01
    assert jacobian.min() < 0.8
    assert jacobian.max() > 1.25


def test_flow_backwards_undoes_flow():
    axes = tuple(np.linspace(0.0, 160.0, 41) for _ in range(3))
    rng = np.random.default_rng(0)
    velocity = 6 * np.stack([deform.draw_field(rng, axes, 22.0) for _ in range(3)]) * deform.window(axes, 40.0)
    there, back = deform.integrate(velocity, axes), deform.integrate(-velocity, axes)
    at = np.indices(velocity.shape[1:]) + there / 4
    returned = there + np.stack([ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in back])
    assert np.abs(there).max() > 10
    assert np.linalg.norm(returned, axis=0).max() < 1  # a quarter of the lattice's step
    assert np.sqrt((returned**2).mean()) < 0.05
    assert np.sqrt(((there + back) ** 2).mean()) > 0.5  # so the inverse is not just the negative


def test_flow_shrinks_what_is_not_invertible():
    axes = tuple(np.arange(0.0, 81.0, 4.0) for _ in range(3))
    rough = 4 * np.random.default_rng(0).standard_normal((3, 21, 21, 21))
    points = [axis[1:-1] for axis in axes]
    with pytest.raises(UserError, match="deformation"):
        template.flow(1000 * rough, axes, points)
    _, jacobian, shrunk = template.flow(rough, axes, points)
    assert shrunk > 0
    assert jacobian.min() > 0


@pytest.mark.parametrize("smoothness", [8.0, 20.0])
def test_field_has_unit_deviation(smoothness):
    axes = tuple(np.linspace(0.0, 160.0, 41) for _ in range(3))
    rng = np.random.default_rng(0)
    fields = np.stack([deform.draw_field(rng, axes, smoothness) for _ in range(20)])
    assert fields.std() == pytest.approx(1, abs=0.1)
    neighbours = np.corrcoef(fields[:, 1:].ravel(), fields[:, :-1].ravel())[0, 1]
    assert neighbours == pytest.approx(np.exp(-((4 / smoothness) ** 2) / 4), abs=0.02)


def test_spline_keeps_values_and_slopes():
    axes = tuple(np.linspace(-10.0, 10.0, 9) for _ in range(3))
    x, y, z = np.meshgrid(*axes, indexing="ij")
    spline = deform.Spline.through(x**2 * y - 3 * z, axes)
    points = [np.array([-7.3, 1.1]), np.array([0.4]), np.array([2.2, 5.0, 9.9])]
    x, y, z = np.meshgrid(*points, indexing="ij")
    assert np.allclose(spline.on_grid(points), x**2 * y - 3 * z, atol=1e-3)
    assert np.allclose(spline.on_grid(points, derivative=0), 2 * x * y, atol=1e-3)
    assert np.allclose(spline.on_grid(points, derivative=2), -3, atol=1e-3)


def test_posteriors_sum_to_one_in_the_mask(people):
    for person in people.values():
        tissues = np.stack([person.wm, person.gm, person.csf])
        assert tissues.min() >= 0
        assert tissues.max() <= 1 + 1e-6
        assert np.allclose(tissues.sum(axis=0), person.mask, atol=1e-5)


def test_white_is_brighter_than_grey_than_csf(people):
    for person in people.values():
        wm, gm, csf = (person.T1w[tissue > 0.9].mean() for tissue in (person.wm, person.gm, person.csf))
        assert 0.6 < gm / wm < 0.82
        assert 0.2 < csf / wm < 0.5
        assert 650 < wm < 1080


def test_deep_grey_is_brighter_than_cortex(people, lut):
    index = {row["name"]: int(row["index"]) for row in lut}
    cortex = [number for name, number in index.items() if name.endswith("Cerebral-Cortex")]
    for person in people.values():
        pure = person.gm > 0.9
        caudate = np.isin(person.dseg, [index["Left-Caudate"], index["Right-Caudate"]])
        assert person.T1w[pure & caudate].mean() > person.T1w[pure & np.isin(person.dseg, cortex)].mean()


def test_brain_is_one_piece_without_holes_and_inside_the_volume(people):
    for person in people.values():
        assert person.mask.any()
        assert not person.T1w[~person.mask].any()
        assert not person.dseg[~person.mask].any()
        assert (person.T1w[person.mask] > 0).all()
        assert (person.dseg[person.mask] > 0).all()
        _, parts = ndimage.label(person.mask)
        assert parts == 1
        assert np.array_equal(ndimage.binary_fill_holes(person.mask), person.mask)
        border = np.ones(person.mask.shape, bool)
        border[1:-1, 1:-1, 1:-1] = False
        assert not person.mask[border].any()


def test_everybody_has_the_same_grid_in_mni_space(people):
    first, *others = people.values()
    assert nib.aff2axcodes(first.affine) == ("R", "A", "S")
    assert all(np.array_equal(person.affine, first.affine) for person in others)
    assert all(person.T1w.shape == first.T1w.shape for person in others)
    centre = nib.affines.apply_affine(first.affine, np.argwhere(first.mask).mean(axis=0))
    assert np.allclose(centre, (0, -20, 10), atol=8)


def test_shape_does_not_depend_on_the_voxel_size(people):
    finer = template.make_person(SCANS[0], SEED, SETTINGS.model_copy(update={"voxel_size": 3.0}))
    coarse = people[SCANS[0]]
    assert finer.mask.sum() * 27 == pytest.approx(coarse.mask.sum() * 64, rel=0.02)
    assert finer.wm.sum() * 27 == pytest.approx(coarse.wm.sum() * 64, rel=0.02)


def test_labels_are_in_the_table_and_agree_with_the_tissue(people, lut):
    index = {row["name"]: int(row["index"]) for row in lut}
    for person in people.values():
        present = set(np.unique(person.dseg)) - {0}
        assert present <= set(index.values())
        assert len(present) >= 20
        tissue = np.stack([person.gm, person.wm, person.csf]).argmax(axis=0)
        cortex = np.isin(person.dseg, [number for name, number in index.items() if "Cortex" in name])
        liquid = np.isin(person.dseg, [index["CSF"], index["Left-Lateral-Ventricle"], index["Right-Lateral-Ventricle"]])
        assert (tissue[cortex] == 0).all()
        assert (tissue[liquid] == 2).all()
        assert (tissue[person.mask & ~liquid] != 2).all()


def test_structures_lie_where_their_names_say(people, lut):
    person = people[SCANS[0]]
    places = {}
    for row in lut:
        where = np.argwhere(person.dseg == int(row["index"]))
        places[row["name"]] = nib.affines.apply_affine(person.affine, where.mean(axis=0))
        if row["hemisphere"] != "n/a":
            assert (places[row["name"]][0] < 0) == (row["hemisphere"] == "L"), row["name"]
    expected = {  # centres in MNI mm, from anatomy books
        "Left-Thalamus": (-11, -18, 8),
        "Right-Putamen": (26, 3, 1),
        "Left-Hippocampus": (-26, -22, -14),
        "Right-Amygdala": (23, -4, -20),
        "Left-Caudate": (-13, 10, 9),
        "Brain-Stem": (0, -27, -28),
        "Right-Cerebellum-Cortex": (24, -64, -36),
    }
    for name, centre in expected.items():
        assert np.linalg.norm(places[name] - centre) < 13, name


def test_table_is_sound(lut):
    index = {int(row["index"]): row for row in lut}
    assert len(index) == len(lut) == len({row["color"] for row in lut}) + sum(row["hemisphere"] == "R" for row in lut)
    for number, row in index.items():
        partner = index[int(row["mirror"])]
        assert int(partner["mirror"]) == number
        swapped = row["name"].replace("Left-", "?").replace("Right-", "Left-").replace("?", "Right-")
        assert partner["name"] == swapped
        assert {row["hemisphere"], partner["hemisphere"]} in ({"L", "R"}, {"n/a"})


def test_template_structures_are_mirror_symmetric():
    kind = anatomy.load_anatomy().kind
    assert np.array_equal(kind, kind[::-1])
    assert set(np.unique(kind)) == set(range(len(anatomy.KINDS)))


def test_build_writes_the_contract_and_records_a_failure(tmp_path, monkeypatch, people):
    bad, good = SCANS
    endings = ["T1w", *build.ENDINGS]
    stale = anat(tmp_path, bad, "T1w.nii.gz")
    stale.parent.mkdir(parents=True)
    stale.touch()

    def make(scan, seed, settings):
        if scan == bad:
            raise UserError("no template")
        return people[scan]

    monkeypatch.setattr(build, "make_person", make)
    build.build_template([bad, good], tmp_path, "T1w", SEED, SETTINGS)

    assert sorted(path.name for path in anat(tmp_path, bad, "x").parent.iterdir()) == [f"{bad}_T1w.json"]
    assert read_json(anat(tmp_path, bad, "T1w.json")) == {"status": "no template"}
    images = {ending: nib.load(anat(tmp_path, good, f"{ending}.nii.gz")) for ending in endings}
    types = {ending: image.get_data_dtype() for ending, image in images.items()}
    assert types["T1w"] == types["label-GM_probseg"] == np.float32
    assert types["dseg"] == np.int16
    assert types["desc-brain_mask"] == np.uint8
    for ending, name in zip(endings, ("T1w", "mask", "wm", "gm", "csf", "dseg"), strict=True):
        assert np.array_equal(np.asanyarray(images[ending].dataobj), getattr(people[good], name)), ending
        assert np.array_equal(images[ending].affine, people[good].affine)
    facts = read_json(anat(tmp_path, good, "T1w.json"))
    assert facts["status"] == "ok"
    assert facts["voxel_size"] == 4.0
    assert 0 < facts["jacobian_min"] < 1 < facts["jacobian_max"]
    assert facts["brain_ml"] == pytest.approx(facts["wm_ml"] + facts["gm_ml"] + facts["csf_ml"], abs=0.2)
    assert 1200 < facts["brain_ml"] < 2400

    lists = [tmp_path / "batch-0.tsv", tmp_path / "batch-1.tsv"]
    write_table(lists[0], [{"scan": bad, "split": "test"}])
    write_table(lists[1], [{"scan": good, "split": "train"}])
    participants.write_participants(lists, tmp_path, "T1w", "template")
    rows = read_table(tmp_path / "participants.tsv")
    assert [row["scan"] for row in rows] == [good, bad]  # train before test
    assert list(rows[0]) == ["participant_id", "scan", "split", "status", "voxel_size", "brain_ml"]
    assert rows[0]["status"] == "ok"
    assert float(rows[0]["brain_ml"]) == facts["brain_ml"]
    assert rows[1]["status"] == "no template"
    assert rows[1]["brain_ml"] == "n/a"
    assert read_list(tmp_path / "participants.tsv", "train") == [good]
    assert (tmp_path / "dseg.tsv").read_text() == anatomy.LUT.read_text()
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "iqt"
    assert "McConnell" in description["License"]


def test_other_contrasts_are_refused(tmp_path):
    with pytest.raises(UserError, match="suffix: T2w"):
        build.build_template(["sub-val001"], tmp_path, "T2w", SEED, SETTINGS)


def test_unknown_split_is_refused(tmp_path):
    write_table(tmp_path / "list.tsv", [{"scan": "sub-a", "split": "tset"}])
    with pytest.raises(UserError, match="tset"):
        participants.write_participants([tmp_path / "list.tsv"], tmp_path, "T1w", "template")
