"""Results against the high-quality scans: failures must stay in the tables."""

from __future__ import annotations

import errno
import json
import shutil

import numpy as np
import pytest
from textured import SHAPE, noisy, random_labels, textured_ball

from iqt.config import Config, Evaluate, LowField
from iqt.config.facts import RunFacts
from iqt.errors import MemoryShortError, StopError, UserError
from iqt.evaluate.gather import HISTORY_COLUMNS, gather
from iqt.evaluate.parcellator_qc import score_parcellator
from iqt.evaluate.run import SUBJECT_COLUMNS, TABLES, attempt, evaluate_result
from iqt.evaluate.similarity import (
    masked_psnr,
)
from iqt.imaging.overlap import mean_overlap, overlap
from iqt.io.batch import MEMORY, UNFORESEEN, run_scans
from iqt.io.files import read_json, read_table, write_json, write_table
from iqt.io.naming import Result, anat, flat, part_folder
from iqt.io.volumes import SCALE_PERCENTILE, read_volume, save_volume
from iqt.planning.plan import Plan
from iqt.report.page.structures import judge
from iqt.report.tables.benchmark import write_tables
from iqt.report.tables.comparisons import write_statistics
from iqt.report.tables.structures import write_structures

NAMES = {1: "one", 2: "two", 3: "three", 9: "nowhere"}
SCANS = [f"sub-test00{number}" for number in range(1, 5)]
METHODS = ["cubic", "unet"]
RESULTS = Result("cubic"), Result("unet", 1)
JUDGED = {"status": "ok", "engine": "builtin", "version": "9"}


@pytest.fixture(scope="module")
def brain():
    return textured_ball()


@pytest.fixture
def run(tmp_path, brain):
    """A run with every kind of failure, as the earlier stages leave it. The first scan by `cubic` is flawless."""
    reference, mask = brain
    root = tmp_path / "run"
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    rows = [
        {"participant_id": scan, "scan": scan, "split": "test", "status": "ok", "voxel_size": "2.0"} for scan in SCANS
    ]
    rows.append({**rows[0], "participant_id": "sub-train001", "scan": "sub-train001", "split": "train"})
    rows[3]["status"] = "no brain"
    write_table(root / "cohort" / "participants.tsv", rows)
    lut = [{"index": 0, "name": "background"}, *({"index": index, "name": name} for index, name in NAMES.items())]
    write_table(root / "cohort" / "dseg.tsv", lut)
    for row in rows:
        scan = row["scan"]
        write_json(anat(root / "cohort", scan, "T1w.json"), {"status": row["status"]})
        save_volume(anat(root / "cohort", scan, "T1w.nii.gz"), 800 * reference, affine)
        save_volume(anat(root / "cohort", scan, "desc-brain_mask.nii.gz"), mask, affine)
        write_json(anat(root / "lowfield/main", scan, "T1w.json"), {"status": "ok"})
    scale = np.percentile(reference[mask], SCALE_PERCENTILE)
    for scan in SCANS[:3]:
        write_json(flat(root / "parcellation/hq", scan, "dseg.json"), JUDGED)
        save_volume(flat(root / "parcellation/hq", scan, "dseg.nii.gz"), random_labels(1), affine)
        for method in METHODS:
            enhanced, parcellation = root / "enhanced/main" / method, root / "parcellation/main" / method
            cost = {"seconds": 1.5, "nfe": 4, "samples": 2, "n_parameters": 10}
            write_json(flat(enhanced, scan, "T1w.json"), {"status": "ok", **cost})
            save_volume(flat(enhanced, scan, "T1w.nii.gz"), np.where(mask, noisy(reference, 0.05) / scale, 0), affine)
            write_json(flat(parcellation, scan, "dseg.json"), JUDGED)
            save_volume(flat(parcellation, scan, "dseg.nii.gz"), random_labels(2), affine)
    write_json(flat(root / "parcellation/main/unet", SCANS[0], "dseg.json"), {"status": "no white matter"})
    write_json(flat(root / "parcellation/hq", SCANS[1], "dseg.json"), {"status": "out of luck"})
    write_json(flat(root / "enhanced/main/cubic", SCANS[2], "T1w.json"), {"status": "diverged"})
    hollow = np.where(mask, reference, np.nan).astype(np.float32)
    save_volume(flat(root / "enhanced/main/unet", SCANS[2], "T1w.nii.gz"), hollow, affine)
    return root


def evaluate(root, scans=SCANS, batch=0):
    """The scores of a batch of both methods, method by method: paths of subjects.csv and structures.csv."""
    found = {"subjects": [], "structures": []}
    for result in RESULTS:
        out = part_folder(root, "main", result.folder, batch)
        evaluate_result(scans, "main", result, "T1w", root, root / "cohort/dseg.tsv", Evaluate(), out)
        for name, rows in found.items():
            rows += read_table(out / f"{name}.csv", required=TABLES[name])
    for name, rows in found.items():
        write_table(root / f"{name}.csv", rows, TABLES[name])
    return root / "subjects.csv", root / "structures.csv"


@pytest.mark.parametrize(
    "status",
    [
        {"status": f"{MEMORY} (2 GB); delete it and run again with more"},
        {"status": "RuntimeError: nobody had foreseen it", UNFORESEEN: True},
    ],
)
def test_a_machine_that_cannot_parcellate_is_no_failure_of_the_method(run, tmp_path, status):
    shutil.copytree(run, tmp_path / "copy")
    write_json(flat(tmp_path / "copy/parcellation/main/unet", SCANS[0], "dseg.json"), status)
    subjects, _ = evaluate(tmp_path / "copy")
    rows = {(row["scan"], row["method"]): row for row in read_table(subjects, required=SUBJECT_COLUMNS)}
    lost = rows[SCANS[0], "unet"]
    assert lost["status"] == f"parcellation: {status['status']}"
    assert lost["miou"] == lost["dice"] == ""
    assert float(lost["psnr"]) > 0


def test_what_is_no_fault_of_a_scan_is_told_from_what_is(tmp_path, monkeypatch):
    """Where memory is short now the job fails, and may be tried again; a GPU that has failed stops the batch."""
    with pytest.raises(MemoryShortError):
        attempt(open_large)
    assert attempt(refuse) == (None, "no")
    for error, stops in ((ValueError("x"), False), (RuntimeError("CUDA error: an illegal access"), True)):

        def work(scan, error=error):
            raise error

        arguments = (["sub-1"], lambda scan: tmp_path / f"{scan}.json", lambda scan: [], work)
        if stops:
            with pytest.raises(RuntimeError, match="CUDA error"):
                run_scans(*arguments)
        else:
            run_scans(*arguments)
            assert read_json(tmp_path / "sub-1.json") == {"status": "ValueError: x", UNFORESEEN: True}

    def broken(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("iqt.io.volumes.open_image", broken)
    with pytest.raises(StopError, match=r"a\.nii: cannot be read \(Input/output error\)"):
        read_volume(tmp_path / "a.nii")


def open_large():
    raise MemoryShortError("does not fit")


def refuse():
    raise UserError("no")


def test_every_scan_and_method_has_a_row_whatever_failed(run, brain):
    reference, mask = brain
    subjects, structures = evaluate(run)
    rows = read_table(subjects, required=SUBJECT_COLUMNS)
    assert SUBJECT_COLUMNS[-1] == "seed"
    assert [(row["method"], row["scan"]) for row in rows] == [(method, scan) for method in METHODS for scan in SCANS]
    by = {(row["scan"], row["method"]): row for row in rows}

    good = by[SCANS[0], "cubic"]
    assert good["status"] == "ok"
    scale = np.percentile(reference[mask], SCALE_PERCENTILE)  # a prediction is on the reference's scale already
    assert float(good["psnr"]) == pytest.approx(
        masked_psnr(reference / scale, noisy(reference, 0.05) / scale, mask), abs=1e-3
    )
    found = overlap(random_labels(1), random_labels(2), 2 * np.eye(4), NAMES)
    assert (float(good["miou"]), float(good["dice"])) == pytest.approx(mean_overlap(found), abs=1e-6)
    assert [good[name] for name in ("n_structures", "seconds", "nfe", "samples", "n_parameters")] == [
        "3",
        "1.5",
        "4",
        "2",
        "10",
    ]
    assert good["msssim_scales"] == "2"

    judged = by[SCANS[0], "unet"]
    assert judged["status"] == "parcellation: no white matter"
    assert float(judged["miou"]) == float(judged["dice"]) == 0
    assert float(judged["psnr"]) == float(good["psnr"])

    untrue = by[SCANS[1], "unet"]
    assert untrue["status"] == "parcellation: out of luck"
    assert untrue["miou"] == untrue["dice"] == untrue["n_structures"] == ""
    assert float(untrue["psnr"]) > 0

    for scan, method, status in (
        (2, "cubic", "enhanced: diverged"),
        (2, "unet", "NaN"),
        (3, "unet", "cohort: no brain"),
    ):
        row = by[SCANS[scan], method]
        assert status in row["status"]
        assert all(row[name] == "" for name in SUBJECT_COLUMNS[4 : SUBJECT_COLUMNS.index("seconds")])

    table = read_table(structures)
    assert [row["index"] for row in table] == ["1", "2", "3", "9"] * 2
    assert {row["iou"] for row in table if row["name"] == "nowhere"} == {""}, "in neither map"
    table = [row for row in table if row["name"] != "nowhere"]
    assert {row["iou"] for row in table if row["method"] == "unet"} == {"0.0"}
    assert all(row["volume_mm3"] == "" for row in table if row["method"] == "unet")
    first = table[0]
    assert (first["name"], float(first["volume_reference_mm3"])) == ("one", 8 * (random_labels(1) == 1).sum())


def test_a_result_on_another_grid_or_absent_is_recorded(run):
    path = flat(run / "enhanced/main/cubic", SCANS[0], "T1w.nii.gz")
    save_volume(path, np.zeros((4, 4, 4), np.float32), np.eye(4))
    flat(run / "enhanced/main/unet", SCANS[0], "T1w.json").unlink()
    rows = read_table(evaluate(run, SCANS[:1])[0])
    assert "another grid" in rows[0]["status"]
    assert "no such file" in rows[1]["status"]


def model(root, name, card):
    folder = root / "models" / name / "seed-1"
    machine = {"cpu": "abacus", "threads": 2, "gpu": None, "python": "3.11", "torch": "2"}
    write_json(folder / "model.json", {"n_parameters": 10, "machine": machine, **card})
    line = {"step": 5, "seconds": 1, "learning_rate": 0.1, "train_loss": 2, "val_loss": 3}
    metric = "val_dice" if name == "parcellator" else "val_psnr"
    write_table(folder / "history.csv", [{**line, metric: 0.5}, {**line, "step": 10, metric: 0.7}])
    return folder / "history.csv"


def facts():
    return Plan(Config.model_validate({"methods": {"cubic": {"kind": "cubic"}, "unet": {"kind": "unet"}}})).facts()


def test_gathering_orders_parts_and_lists_every_failure_once(run):
    evaluate(run, SCANS[2:], 0)
    evaluate(run, SCANS[:2], 1)
    metrics = {"val_loss": 3.0, "val_psnr": 0.7}
    histories = {
        "unet": model(run, "unet", {"kind": "unet", "steps": 10, "seconds": 1.0, "metrics": metrics}),
        "parcellator": model(run, "parcellator", {"kind": "builtin", "steps": 10, "metrics": {"val_dice": 0.7}}),
    }
    gather(run, [0, 1], histories, facts(), run / "cohort/dseg.tsv", run / "metrics")

    rows = read_table(run / "metrics/subjects.csv")
    assert [(row["method"], row["scan"]) for row in rows] == [(method, scan) for method in METHODS for scan in SCANS]
    assert list(rows[0]) == list(SUBJECT_COLUMNS)
    structures = read_table(run / "metrics/structures.csv")
    assert [row["index"] for row in structures] == ["1", "2", "3", "9"] * 2
    history = read_table(run / "metrics/history.csv")
    assert tuple(history[0]) == HISTORY_COLUMNS
    assert [(row["model"], row["step"]) for row in history] == [
        *(("unet", "5"), ("unet", "10")),
        *(("parcellator", "5"), ("parcellator", "10")),
    ]
    assert (history[1]["val_psnr"], history[1]["val_dice"]) == ("0.7", "")

    told = read_json(run / "metrics/run.json")
    cohort = told["cohort"]
    assert (cohort["voxel_size_mm"], cohort["n_train"], cohort["n_val"], cohort["n_test"]) == (2.0, 1, 0, 3)
    skipped = [(entry["scan"], entry["stage"]) for entry in cohort["skipped"]]
    assert sorted(skipped) == [
        (SCANS[0], "parcellation/main/unet"),
        (SCANS[1], "parcellation/hq"),
        (SCANS[2], "enhanced/main/cubic"),
        (SCANS[2], "evaluate/main/unet"),
        (SCANS[3], "cohort"),
    ]
    assert told["lowfield"]["main"] == LowField().model_dump(mode="json", exclude={"registration"})
    assert told["models"]["unet"]["val_psnr"] == told["models"]["parcellator"]["val_dice"] == 0.7
    assert told["methods"]["unet"] == {"kind": "unet", "model": "unet", "nfe": 4, "samples": 2}
    assert told["methods"]["cubic"]["model"] is None
    assert told["parcellator"] == {"engine": "builtin", "version": "9", "n_structures": 4}
    assert told["machine"]["cpu"] == "abacus"

    before = (run / "metrics/run.json").read_bytes()
    gather(run, [1, 0], histories, facts(), run / "cohort/dseg.tsv", run / "metrics")
    assert (run / "metrics/run.json").read_bytes() == before


def test_gathering_refuses_what_is_not_of_the_run(run):
    for batch in (0, 1):
        evaluate(run, SCANS[:1], batch)
    arguments = {}, facts(), run / "cohort/dseg.tsv", run / "metrics"
    gather(run, [0], *arguments)
    with pytest.raises(UserError, match=f"{SCANS[0]} is in another batch too"):
        gather(run, [0, 1], *arguments)
    foreign = part_folder(run, "main", RESULTS[1].folder, 0) / "subjects.csv"
    for column, value in (("scan", "sub-99"), ("set", "thick"), ("method", "cubic"), ("seed", "2")):
        rows = read_table(foreign)
        write_table(foreign, [{**rows[0], column: value}, *rows[1:]], SUBJECT_COLUMNS)
        with pytest.raises(UserError, match=f"{foreign}.*{value}.* is not of this result and run"):
            gather(run, [0], *arguments)
        write_table(foreign, rows, SUBJECT_COLUMNS)


def test_a_set_without_a_method_has_no_failure_of_it(run):
    """What an earlier configuration made on the set lies there still."""
    evaluate(run)
    told = facts()
    told.made["main"] = ("cubic",)
    gather(run, [0], {}, told, run / "cohort/dseg.tsv", run / "metrics")
    stages = {entry["stage"] for entry in read_json(run / "metrics/run.json")["cohort"]["skipped"]}
    assert "enhanced/main/cubic" in stages
    assert not [stage for stage in stages if "unet" in stage]


def test_what_an_earlier_configuration_left_is_no_failure_of_this_one(run):
    """A person who was tested then and is trained on now, and a parcellator that is switched off."""
    evaluate(run)
    write_json(flat(run / "enhanced/main/unet", "sub-train001", "T1w.json"), {"status": "diverged"})
    gather(run, [0], {}, facts(), run / "cohort/dseg.tsv", run / "metrics")
    skipped = read_json(run / "metrics/run.json")["cohort"]["skipped"]
    assert {entry["stage"] for entry in skipped} >= {"parcellation/hq", "parcellation/main/unet"}
    assert "sub-train001" not in {entry["scan"] for entry in skipped}
    gather(run, [0], {}, facts().model_copy(update={"engine": "none"}), None, run / "metrics")
    skipped = read_json(run / "metrics/run.json")["cohort"]["skipped"]
    assert not [entry for entry in skipped if entry["stage"].startswith("parcellation")]
    write_json(anat(run / "lowfield/main", "sub-train001", "T1w.json"), {"status": "no signal"})
    for trained, told in ((("main",), True), ((), False)):
        asked = facts().model_copy(update={"training_sets": trained})
        gather(run, [0], {}, asked, run / "cohort/dseg.tsv", run / "metrics")
        scans = {entry["scan"] for entry in read_json(run / "metrics/run.json")["cohort"]["skipped"]}
        assert ("sub-train001" in scans) is told


def test_facts_pass_through_json():
    assert RunFacts.model_validate(json.loads(facts().model_dump_json())) == facts()


def test_readings_of_different_parcellators_are_not_compared(run):
    write_json(flat(run / "parcellation/main/cubic", SCANS[0], "dseg.json"), {**JUDGED, "version": "10"})
    subjects, structures = evaluate(run, [SCANS[0]])
    rows = read_table(subjects)
    cubic = next(row for row in rows if row["method"] == "cubic")
    assert cubic["status"].startswith("parcellation: read by builtin 10, but the reference by builtin 9")
    assert (cubic["miou"], cubic["parcellator"]) == ("", "builtin 9")
    assert cubic["psnr"]
    assert not [row for row in read_table(structures) if row["method"] == "cubic"]


def test_the_parcellator_is_scored_against_the_scans_own_labels(run, brain):
    """Merged labels are read as their structure, and nothing outside the mask counts."""
    _, mask = brain
    reading = read_volume(flat(run / "parcellation/hq", SCANS[0], "dseg.nii.gz"), np.int32)
    own = np.where(reading.data == 1, 7, reading.data)
    own[~mask] = 2
    save_volume(anat(run / "cohort", SCANS[0], "dseg.nii.gz"), own.astype(np.int16), reading.affine)
    lut = [{"index": 0, "name": "BG", "mirror": 0, "merges": ""}]
    lut += [{"index": index, "name": str(index), "mirror": index, "merges": ""} for index in (1, 2, 3)]
    lut[1]["merges"] = "7"
    write_table(run / "merged.tsv", lut)
    out = run / "metrics/parcellator.csv"
    score_parcellator(
        run / "cohort/participants.tsv", run / "cohort", run / "parcellation/hq", "T1w", run / "merged.tsv", out
    )
    rows = read_table(out)
    assert {row["scan"] for row in rows} == {SCANS[0]}, "the others bring no labels"
    inside = np.where(mask, reading.data, 0)
    for row in rows:
        k = int(row["index"])
        expected = 2 * (inside == k).sum() / ((inside == k).sum() + (reading.data == k).sum())
        assert float(row["dice"]) == pytest.approx(expected, abs=1e-6)


def test_a_scan_that_the_parcellator_failed_on_counts_as_zero(run):
    volume = read_volume(flat(run / "parcellation/hq", SCANS[0], "dseg.nii.gz"), np.int32)
    save_volume(anat(run / "cohort", SCANS[0], "dseg.nii.gz"), volume.data.astype(np.int16), volume.affine)
    write_json(flat(run / "parcellation/hq", SCANS[0], "dseg.json"), {"status": "no white matter"})
    lut = [{"index": index, "name": str(index), "mirror": index, "merges": ""} for index in range(4)]
    write_table(run / "plain.tsv", lut)
    out = run / "metrics/parcellator.csv"
    score_parcellator(
        run / "cohort/participants.tsv", run / "cohort", run / "parcellation/hq", "T1w", run / "plain.tsv", out
    )
    rows = read_table(out)
    assert {float(row["dice"]) for row in rows} == {0.0}
    assert {row["scan"] for row in rows} == {SCANS[0]}


def test_an_empty_mask_and_a_result_with_infinities_are_recorded(run, brain):
    """Each is one scan's status in the table; the other results of the batch are scored."""
    reference, mask = brain
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    save_volume(anat(run / "cohort", SCANS[1], "desc-brain_mask.nii.gz"), np.zeros_like(mask), affine)
    endless = np.where(mask, reference, 0).astype(np.float32)
    endless[tuple(np.argwhere(mask)[0])] = np.inf
    save_volume(flat(run / "enhanced/main/unet", SCANS[2], "T1w.nii.gz"), endless, affine)
    rows = {(row["scan"], row["method"]): row for row in read_table(evaluate(run)[0])}
    for method in METHODS:
        assert "mask" in rows[SCANS[1], method]["status"]
        assert rows[SCANS[1], method]["psnr"] == rows[SCANS[1], method]["ulfenc"] == ""
    assert rows[SCANS[2], "unet"]["status"] != "ok"
    assert rows[SCANS[2], "unet"]["psnr"] == ""
    assert rows[SCANS[0], "cubic"]["status"] == "ok"
    assert all(rows[SCANS[0], "cubic"][name] for name in SUBJECT_COLUMNS[:-1] if name != "lpips"), (
        "every measure is there, but that which needs weights"
    )


def test_a_perceptual_distance_that_cannot_be_measured_costs_nothing_else(run, monkeypatch):
    def broken(*images):
        raise UserError("out of colours")

    monkeypatch.setattr("iqt.evaluate.run._lpips", lambda settings: broken)
    rows = {row["method"]: row for row in read_table(evaluate(run, SCANS[:1])[0])}
    assert rows["cubic"]["status"] == "LPIPS: out of colours"
    assert rows["cubic"]["lpips"] == ""
    assert float(rows["cubic"]["miou"]) > 0
    assert rows["unet"]["status"].startswith("parcellation: no white matter")
    assert rows["unet"]["status"].endswith("; LPIPS: out of colours")


def test_a_parcellation_without_any_structure_scores_zero(run):
    """A reading that holds nothing is the worst one, not an absent one."""
    path = flat(run / "parcellation/main/cubic", SCANS[0], "dseg.nii.gz")
    save_volume(path, np.zeros(SHAPE, np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    subjects, structures = evaluate(run, SCANS[:1])
    row = read_table(subjects)[0]
    assert (row["status"], float(row["miou"]), float(row["dice"])) == ("ok", 0, 0)
    held = [one for one in read_table(structures) if one["method"] == "cubic" and one["name"] != "nowhere"]
    assert [(float(one["dice"]), float(one["volume_mm3"])) for one in held] == [(0, 0)] * 3


def test_every_kind_of_failure_stands_in_the_written_tables(run, brain, tmp_path):
    """A NaN result, an empty mask, a failed parcellation, a row that is not there, a structure that nobody has."""
    _, mask = brain
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    save_volume(anat(run / "cohort", SCANS[1], "desc-brain_mask.nii.gz"), np.zeros_like(mask), affine)
    save_volume(flat(run / "enhanced/main/cubic", SCANS[2], "T1w.nii.gz"), np.where(mask, 0.5, 0), affine)
    write_json(flat(run / "enhanced/main/cubic", SCANS[2], "T1w.json"), {"status": "ok"})
    subjects, structures = evaluate(run)
    rows = read_table(subjects)
    write_table(subjects, [row for row in rows if (row["scan"], row["method"]) != (SCANS[3], "unet")])
    write_tables(subjects, tmp_path, "main", 100, 1)
    write_statistics(subjects, tmp_path, "main", "cubic", 100, 1)
    write_structures(structures, tmp_path, "main", SCANS, METHODS, 100, 1)
    cubic, unet = read_table(tmp_path / "benchmark.csv")
    assert (cubic["n_subjects"], cubic["n_failed"], cubic["psnr_n"]) == ("4", "2", "2")
    assert (unet["n_subjects"], unet["n_failed"], unet["psnr_n"], unet["miou_n"]) == ("4", "4", "1", "1")
    assert (unet["miou"], unet["miou_common"], unet["miou_common_n"]) == ("0", "", "0")
    assert cubic["miou_common_n"] != "0", "a method that never succeeded takes nothing from the others"
    assert cubic["psnr_n_shared"] == "1"
    for name in ("benchmark.md", "similarity.md", "benchmark.tex"):
        text = " ".join((tmp_path / name).read_text().replace("\n% ", " ").split())
        for scan, method, why in (
            (SCANS[0], "unet", "parcellation: no white matter"),
            (SCANS[1], "cubic", "the brain mask is empty"),
            (SCANS[1], "unet", "the brain mask is empty"),
            (SCANS[2], "unet", "NaN"),
            (SCANS[3], "cubic", "cohort: no brain"),
            (SCANS[3], "unet", "has no row for it"),
        ):
            assert f"{scan} {method} (" in text, (name, scan, method)
            assert why in text.partition(f"{scan} {method} (")[2].partition(")")[0], (name, scan, method)
    table = [line for line in (tmp_path / "benchmark.md").read_text().splitlines() if line.startswith("| unet")]
    assert "[1 of 4]" in table[0]
    assert "| 1 of 4 | 4 |" in table[0]
    assert "– [0 of 4]" in table[0], "mIoU common: no scan on which it succeeded"
    tested = {row["metric"]: row for row in read_table(tmp_path / "statistics.csv")}
    assert {(row["n"], row["n_missing"]) for row in tested.values()} == {("1", "3")}
    overlaps = (tmp_path / "structures.md").read_text()
    assert "| nowhere | cubic | 0 of 4 (2 absent, 2 missing) | – |" in overlaps
    assert "| nowhere | unet | 0 of 4 (1 absent, 3 missing) | – |" in overlaps
    assert "| 1 of 4 (3 missing) | 0.000" in overlaps, "a failed parcellation is 0, not absent"
    assert "cubic 2, unet 1 (all methods have 1)" in overlaps


def test_a_corrupt_label_map_is_a_recorded_failure_of_the_judges_score(run):
    """One scan is whole, one truncated, one on another grid; the fourth failed in the cohort."""
    lut = [{"index": index, "name": str(index), "mirror": index, "merges": ""} for index in range(4)]
    write_table(run / "plain.tsv", lut)
    volume = read_volume(flat(run / "parcellation/hq", SCANS[0], "dseg.nii.gz"), np.int32)
    for scan in SCANS[:2]:
        save_volume(anat(run / "cohort", scan, "dseg.nii.gz"), volume.data.astype(np.int16), volume.affine)
    truncated = anat(run / "cohort", SCANS[1], "dseg.nii.gz")
    truncated.write_bytes(truncated.read_bytes()[:200])
    save_volume(anat(run / "cohort", SCANS[2], "dseg.nii.gz"), volume.data[1:].astype(np.int16), volume.affine)
    out = run / "metrics/parcellator.csv"
    score_parcellator(
        run / "cohort/participants.tsv", run / "cohort", run / "parcellation/hq", "T1w", run / "plain.tsv", out
    )
    rows = {row["scan"]: row for row in read_table(out)}
    assert list(rows) == SCANS[:3]
    assert rows[SCANS[0]]["status"] == "ok"
    for scan in SCANS[1:3]:
        assert str(anat(run / "cohort", scan, "dseg.nii.gz")) in rows[scan]["status"]
        assert rows[scan]["dice"] == ""
    shown = judge(run / "metrics", {})
    assert set(shown["failures"]) == {SCANS[1], SCANS[2]}
    assert shown["n_scans"] == 1
    whole = [float(row["dice"]) for row in read_table(out) if row["scan"] == SCANS[0]]
    assert shown["dice"] == pytest.approx(np.mean(whole)), "what could not be compared is in no mean"
