"""The built-in parcellator: labels, slices, network, whole volumes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.processing import resample_from_to

from iqt.config import Parcellator
from iqt.errors import UserError
from iqt.imaging.resample import at_voxel_size, labels_on
from iqt.io.files import read_json, write_json, write_table
from iqt.io.labels import LabelTable
from iqt.io.naming import anat, flat
from iqt.io.volumes import Volume, save_volume
from iqt.networks.multiview import IN_SLICES, PLANES, CompetitiveBlock, MultiView, SliceNet
from iqt.parcellate.losses import class_weights, label_edges, mean_dice, slice_loss
from iqt.parcellate.people import common_voxel_size, make_person, read_people, read_person, usable_scans
from iqt.parcellate.predict import KIND, TrainedParcellator, build_network, plane_scores, predict_labels
from iqt.parcellate.run import parcellate_scans
from iqt.parcellate.slices import SLICE_AXIS, SliceStacks
from iqt.training.checkpoints import save_model

TABLE = LabelTable(ids=(0, 2, 16, 41), mirrors=(0, 3, 2, 1))
"""Background, left, midline, right."""

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
TWO_MM = (2.0, 2.0, 2.0)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def phantom(shape: tuple[int, int, int] = (24, 26, 22), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid of two halves of equal brightness with a dark core: image (scale 1) and labels."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, size) for size in shape], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    labels = np.where(axes[0] < 0, 2, 41)
    labels[radius < 0.4] = 16
    labels[radius > 1] = 0
    image = np.where(labels == 16, 0.4, 0.9) + rng.normal(0, 0.02, shape)
    return np.where(labels > 0, image, 0).astype(np.float32), labels.astype(np.int16)


def random_parcellator(levels: int = 2, filters: int = 4) -> TrainedParcellator:
    """An untrained network whose labels vary from voxel to voxel."""
    network = build_network(Parcellator(filters=filters, levels=levels), TABLE).train()
    with torch.no_grad():
        for _ in range(20):
            network({plane: torch.rand(2, IN_SLICES, 16, 16) for plane in PLANES})  # sets what BatchNorm subtracts
        for net in network.nets.values():
            net.classify.bias.zero_()
    return TrainedParcellator(network.eval(), TABLE, levels, "float32")


# Network


def test_competitive_block_takes_maxima():
    block, x = CompetitiveBlock(4, 4).train(), torch.randn(2, 4, 6, 6)
    first, second, last = block.steps
    once = torch.stack([x, first(x)]).amax(0)
    twice = torch.stack([once, second(once)]).amax(0)
    torch.testing.assert_close(block(x), last(twice))  # with gradients
    with torch.no_grad():
        torch.testing.assert_close(block(x), last(twice))
    assert tuple(last[1].kernel_size) == (1, 1)


def test_gradient_of_the_maximum_goes_to_the_larger():
    from iqt.networks.multiview import maximum

    x = torch.tensor([1.0, 5.0], requires_grad=True)
    y = torch.tensor([2.0, 3.0], requires_grad=True)
    maximum(x, y).sum().backward()
    assert x.grad.tolist() == [0, 1]
    assert y.grad.tolist() == [1, 0]


def unpooled(small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
    """Each value of `small` where the largest of its four stood in `large`, zeros elsewhere; one value at a time."""
    out = torch.zeros_like(large)
    for b, c, i, j in np.ndindex(*small.shape):
        block = large[b, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = divmod(int(block.argmax()), 2)
        out[b, c, 2 * i + row, 2 * j + column] = small[b, c, i, j]
    return out


def test_decoder_puts_values_back_where_they_were_found_and_takes_the_maximum_with_the_skip():
    net = SliceNet(IN_SLICES, 3, filters=4, levels=2).eval()
    x = torch.randn(1, IN_SLICES, 8, 12)
    with torch.no_grad():
        first = net.encoder[0](x)
        second = net.encoder[1](torch.nn.functional.max_pool2d(first, 2))
        deep = net.bottleneck(torch.nn.functional.max_pool2d(second, 2))
        up = net.decoder[0](torch.maximum(unpooled(deep, second), second))
        up = net.decoder[1](torch.maximum(unpooled(up, first), first))
        torch.testing.assert_close(net(x), net.classify(up))


@pytest.mark.parametrize("size", [(16, 24), (18, 21)])
def test_multiview_gives_logits_a_plane(size):
    network = MultiView(n_classes=5, n_merged=3, filters=4, levels=2)
    logits = network({plane: torch.randn(2, IN_SLICES, *size) for plane in PLANES})
    assert {plane: tuple(values.shape) for plane, values in logits.items()} == {
        "axial": (2, 5, *size),
        "coronal": (2, 5, *size),
        "sagittal": (2, 3, *size),
    }


# Losses


def test_loss_agrees_with_its_definition():
    logits, target = torch.randn(2, 4, 5, 6), torch.randint(0, 3, (2, 5, 6))  # class 3 is absent
    weights = torch.tensor([0.5, 1.0, 2.0, 5.0])
    p = logits.softmax(1)
    entropy, dice = 0.0, []
    for b, i, j in np.ndindex(2, 5, 6):
        near = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
        edge = any(0 <= r < 5 and 0 <= c < 6 and target[b, r, c] != target[b, i, j] for r, c in near)
        weight = weights[target[b, i, j]] + (5 if edge else 0)
        entropy -= weight * torch.log(p[b, target[b, i, j], i, j]) / 60
    for number in range(3):
        truth = (target == number).float()
        dice.append(2 * (p[:, number] * truth).sum() / (p[:, number].sum() + truth.sum()))
    torch.testing.assert_close(slice_loss(logits, target, weights), entropy + 1 - sum(dice) / 3)


def test_edges_are_both_sides_of_a_border():
    target = torch.zeros(1, 4, 5, dtype=torch.long)
    target[:, :, 3:] = 1
    assert label_edges(target)[0].sum(0).tolist() == [0, 0, 4, 4, 0]


def test_mean_dice_counts_structures_of_the_target():
    target, predicted = torch.tensor([[0, 1, 1, 2, 2]]), torch.tensor([[3, 1, 0, 2, 2]])
    assert mean_dice(predicted, target, 4) == pytest.approx((2 / 3 + 1) / 2)


def test_class_weights_balance_by_the_median_and_are_capped():
    classes = np.repeat([0, 1, 2, 3], [1000, 100, 50, 2]).astype(np.int16).reshape(-1, 1, 1)
    person = make_person(np.ones(classes.shape), classes, 4)
    np.testing.assert_allclose(class_weights([person, person], np.arange(4)), [0.075, 0.75, 1.5, 5], rtol=1e-6)
    np.testing.assert_allclose(class_weights([person], TABLE.merged), [102 / 1000, 1, 102 / 50], rtol=1e-6)


# Slices


def stacks(length: int = 8, seed: int = 3, **options) -> SliceStacks:
    people = []
    for number in range(2):
        image, labels = phantom(seed=number)
        people.append(make_person(image, TABLE.to_classes(labels, "x"), TABLE.n_classes))
    return SliceStacks(people, TABLE, 16, length, seed, **{"augment": True, **options})


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_items_depend_on_the_seed_and_their_number_alone():
    data, longer = stacks(), stacks(length=20)
    backwards = [longer[i] for i in reversed(range(8))][::-1]
    assert all(same(data[i], backwards[i]) for i in range(8))
    assert not same(data[0], data[1])
    assert not same(data[0], stacks(seed=4)[0])
    with pytest.raises(IndexError):
        data[8]


@pytest.mark.parametrize("augment", [False, True])
def test_targets_lie_on_their_images(augment):
    for item in map(stacks(augment=augment).__getitem__, range(8)):
        for plane in PLANES:
            stack, target = item[plane], item[f"{plane}_target"]
            assert stack.shape == (IN_SLICES, 16, 16)
            assert target.shape == (16, 16)
            assert target.max() < (TABLE.n_merged if plane == "sagittal" else TABLE.n_classes)
            middle, core = stack[IN_SLICES // 2], target == 2
            shell = (target != 2) & (target > 0)
            assert ((middle > 0) == (target > 0)).float().mean() > 0.9
            if core.sum() > 20 and shell.sum() > 20:
                assert middle[core].mean() < middle[shell].mean() - 0.2


def test_random_contrast_paints_structures_alike_on_both_sides():
    """Flat greys: a structure and its mirror image share one, another draw has others, the background stays 0."""
    greys = []
    for item in map(stacks(random_contrast=True).__getitem__, range(8)):
        stack, target = item["axial"][IN_SLICES // 2], item["axial_target"]
        sides = [stack[target == number] for number in (1, 3)]
        if min(len(side) for side in sides) > 40:
            left, right = (float(side.median()) for side in sides)
            assert left == pytest.approx(right, abs=0.15)
            greys.append(left)
        assert ((stack > 0) == (target > 0)).float().mean() > 0.9
    assert len(greys) > 2
    assert max(greys) - min(greys) > 0.2
    plain, painted = stacks(augment=False), stacks(augment=False, random_contrast=True)
    assert same(plain[0], painted[0]), "validation reads the scans"


def test_without_augmentation_a_stack_is_cut_out_as_it_is():
    data = stacks(augment=False)
    people = [(person.image, person.classes) for person in data.people]
    for plane in PLANES:
        stack, target = data[0][plane].numpy(), data[0][f"{plane}_target"].numpy()
        found = False
        for image, classes in people:
            image = np.moveaxis(np.pad(image, IN_SLICES // 2), SLICE_AXIS[plane], 0)
            classes = np.moveaxis(np.pad(classes, IN_SLICES // 2), SLICE_AXIS[plane], 0)
            classes = TABLE.merged[classes] if plane == "sagittal" else classes
            windows = np.lib.stride_tricks.sliding_window_view(image, stack.shape)
            for where in np.argwhere(np.isclose(windows[..., 3, 8, 8], stack[3, 8, 8], atol=1e-4)):
                if np.allclose(windows[tuple(where)], stack, atol=1e-3):
                    k, i, j = where
                    np.testing.assert_array_equal(classes[k + IN_SLICES // 2, i : i + 16, j : j + 16], target)
                    found = True
        assert found, plane


# Whole volumes


def test_scores_are_the_weighted_sum_of_the_planes():
    parcellator = random_parcellator()
    image = np.random.default_rng(0).random((8, 12, 16), np.float32)
    padded = np.pad(image, IN_SLICES // 2)
    expected = torch.zeros(*image.shape, TABLE.n_classes)
    nets, inner = parcellator.network.nets, [slice(3, 3 + size) for size in image.shape]
    with torch.no_grad():
        for z in range(16):
            stack = torch.from_numpy(padded[inner[0], inner[1], z : z + 7].transpose(2, 0, 1).copy())
            expected[:, :, z] += 0.4 * nets["axial"](stack[None])[0].permute(1, 2, 0)
        for y in range(12):
            stack = torch.from_numpy(padded[inner[0], y : y + 7, inner[2]].transpose(1, 0, 2).copy())
            expected[:, y] += 0.4 * nets["coronal"](stack[None])[0].permute(1, 2, 0)
        for x in range(8):
            logits = nets["sagittal"](torch.from_numpy(padded[x : x + 7, inner[1], inner[2]].copy())[None])[0]
            for number in range(TABLE.n_classes):
                expected[x, :, :, number] += 0.2 * logits[TABLE.merged[number]]
    torch.testing.assert_close(plane_scores(parcellator, image), expected, rtol=1e-4, atol=1e-4)


def test_labels_do_not_depend_on_the_array_orientation():
    parcellator, (data, labels) = random_parcellator(), phantom((18, 22, 20))
    ras = nib.Nifti1Image(data, AFFINE)
    codes = nib.orientations.axcodes2ornt
    to_lia = nib.orientations.ornt_transform(codes("RAS"), codes("LIA"))
    turned = ras.as_reoriented(to_lia)
    assert nib.aff2axcodes(turned.affine) == ("L", "I", "A")
    mask = nib.Nifti1Image((labels > 0).astype(np.uint8), AFFINE)
    straight = predict_labels(parcellator, Volume(data, AFFINE), labels > 0)
    other = predict_labels(
        parcellator, Volume(turned.get_fdata(dtype=np.float32), turned.affine), mask.as_reoriented(to_lia).get_fdata()
    )
    back = nib.as_closest_canonical(nib.Nifti1Image(other, turned.affine))
    np.testing.assert_allclose(back.affine, AFFINE)
    assert len(np.unique(straight[labels > 0])) > 1
    np.testing.assert_array_equal(back.get_fdata().astype(int), straight)


@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (2.0, 2.0, 3.0)])
def test_other_voxel_sizes_are_brought_to_the_trainings(sizes):
    """A volume sampled finer or coarser, and turned, gets labels on its own grid that agree with the usual ones."""
    parcellator = random_parcellator()._replace(voxel_size=(2.0, 2.0, 2.0))
    data, labels = phantom((32, 30, 28))
    smooth = Volume(np.where(labels > 0, 0.4 + 0.5 * (labels == 16), 0).astype(np.float32), AFFINE)
    usual = predict_labels(parcellator, smooth, labels > 0)
    shape = tuple(np.round(np.array(data.shape) * 2 / sizes).astype(int))
    affine = np.diag([*sizes, 1.0]) @ nib.affines.from_matvec(np.diag([-1, 1, 1]), [shape[0] - 1, 0, 0])
    image = nib.Nifti1Image(smooth.data, AFFINE)
    other = np.asarray(resample_from_to(image, (shape, affine), order=0, mode="nearest").dataobj)
    mask = other > 0
    found = predict_labels(parcellator, Volume(other.astype(np.float32), affine), mask)
    assert found.shape == shape
    assert not found[~mask].any()
    back = nib.Nifti1Image(found.astype(np.int32), affine)
    back = np.asarray(resample_from_to(back, (data.shape, AFFINE), order=0, mode="nearest").dataobj)
    inner = labels > 0
    assert (back == usual)[inner].mean() > (0.85 if sizes[2] < 2 else 0.6)


def test_labels_are_brought_back_voxel_by_voxel():
    """A label map in RAS of 2 mm on a turned grid of other voxels: each has the label at its place in the world."""
    shape, codes = (9, 7, 11), ("P", "I", "R")
    labels = np.random.default_rng(0).integers(0, 1000, (14, 15, 12)).astype(np.int32)
    affine = nib.affines.from_matvec(np.diag([2.0, 2.0, 2.0]), (-10, -12, -8))
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), shape)
    grid = nib.affines.from_matvec(np.diag([1.5, 2.5, 1.0]), (-8.2, -9.1, -6.3)) @ turn
    found = labels_on(labels, affine, Volume(np.zeros(shape), grid))
    for index in np.ndindex(shape):
        place = np.rint(np.linalg.inv(affine) @ grid @ [*index, 1])[:3].astype(int)
        inside = (place >= 0).all() and (place < labels.shape).all()
        assert found[index] == (labels[tuple(place)] if inside else 0)


def test_what_is_finer_than_the_new_voxels_does_not_fold_back():
    checkers = (np.indices((24, 24, 24)).sum(0) % 2).astype(np.float32)
    fine = Volume(checkers, np.diag([1.0, 1.0, 1.0, 1.0]))
    coarse, _ = at_voxel_size(fine, np.ones(checkers.shape, bool), (2.0, 2.0, 2.0))
    inner = coarse.data[2:-2, 2:-2, 2:-2]
    assert inner.mean() == pytest.approx(0.5, abs=0.02)
    assert inner.std() < 0.05


def test_what_lies_outside_the_mask_is_neither_read_nor_labelled():
    parcellator, (data, labels) = random_parcellator(), phantom()
    mask = labels > 0
    bright = np.where(mask, data, 7).astype(np.float32)
    predicted = predict_labels(parcellator, Volume(data, AFFINE), mask)
    assert predicted.dtype == np.int16
    assert len(np.unique(predicted[mask])) > 1
    assert not predicted[~mask].any()
    np.testing.assert_array_equal(predict_labels(parcellator, Volume(bright, AFFINE), mask), predicted)
    with pytest.raises(UserError, match="mask is empty"):
        predict_labels(parcellator, Volume(data, AFFINE), np.zeros_like(mask))


# Files


def write_scan(cohort: Path, scan: str, factor: float = 1.0, **files) -> None:
    image, labels = phantom()
    parts = {"T1w": image * factor, "desc-brain_mask": (labels > 0).astype(np.uint8), "dseg": labels, **files}
    for ending, data in parts.items():
        if data is not None:
            save_volume(anat(cohort, scan, f"{ending}.nii.gz"), data, AFFINE)
    write_json(anat(cohort, scan, "T1w.json"), {"status": "ok"})


def test_a_training_scan_is_scaled_cropped_and_masked(tmp_path):
    image, labels = phantom()
    head = np.where(labels > 0, image * 250, 900)
    write_scan(tmp_path, "sub-01", T1w=head, dseg=np.where(labels > 0, labels, 2).astype(np.int16))
    person = read_person(tmp_path, "sub-01", "T1w", TABLE, TWO_MM)
    assert person.image.max() == pytest.approx(image.max() / np.percentile(image[labels > 0], 99.5), abs=2e-3)
    assert np.count_nonzero(person.classes) == np.count_nonzero(labels)
    assert all(person.classes.any(axis=other).all() for other in ((1, 2), (0, 2), (0, 1)))
    for number in range(1, TABLE.n_classes):
        found = person.order[person.starts[number] : person.starts[number + 1]]
        assert (person.classes.ravel()[found] == number).all()


def test_scans_that_teach_nothing_are_left_out_and_other_voxels_brought_to_the_common_ones(tmp_path, capsys):
    for scan in ("sub-01", "sub-02", "sub-03"):
        write_scan(tmp_path, scan)
    anat(tmp_path, "sub-02", "dseg.nii.gz").unlink()
    volume, labels = phantom()
    fine = np.repeat(np.repeat(np.repeat(np.stack([volume, labels]), 2, 1), 2, 2), 2, 3)
    affine = AFFINE @ nib.affines.from_matvec(np.eye(3) / 2, (-0.25, -0.25, -0.25))
    for ending, data in (("T1w", fine[0]), ("desc-brain_mask", fine[1] > 0), ("dseg", fine[1].astype(np.int16))):
        save_volume(anat(tmp_path, "sub-03", f"{ending}.nii.gz"), data, affine)
    size = common_voxel_size(tmp_path, ["sub-01", "sub-02", "sub-03"], "T1w")
    assert size == pytest.approx(TWO_MM)
    one, three = read_people(tmp_path, ["sub-01", "sub-02", "sub-03"], "T1w", TABLE, size)
    assert "sub-02 is left out" in capsys.readouterr().err
    assert np.abs(np.array(three.image.shape) - one.image.shape).max() <= 1
    counts = [np.bincount(person.classes.ravel(), minlength=TABLE.n_classes)[1:] for person in (one, three)]
    np.testing.assert_allclose(counts[1], counts[0], rtol=0.25)
    with pytest.raises(UserError, match=r"nothing to learn from: .*no such label map.*weights: shipped"):
        read_people(tmp_path, ["sub-02"], "T1w", TABLE, size)


def test_unusable_training_data_is_named(tmp_path):
    image, labels = phantom()
    write_scan(tmp_path, "sub-01", dseg=None)
    with pytest.raises(UserError, match=r"sub-01_dseg\.nii\.gz: no such label map"):
        read_person(tmp_path, "sub-01", "T1w", TABLE, TWO_MM)
    write_scan(tmp_path, "sub-02", dseg=np.zeros_like(labels))
    with pytest.raises(UserError, match=r"sub-02_dseg\.nii\.gz: holds no label inside the brain mask"):
        read_person(tmp_path, "sub-02", "T1w", TABLE, TWO_MM)
    thin = {"T1w": image[:, :, 9:14], "desc-brain_mask": np.uint8(labels > 0)[:, :, 9:14], "dseg": labels[:, :, 9:14]}
    write_scan(tmp_path, "sub-03", **thin)
    with pytest.raises(UserError, match=r"sub-03_T1w\.nii\.gz: .* reads 7 slices"):
        read_person(tmp_path, "sub-03", "T1w", TABLE, TWO_MM)
    table = tmp_path / "participants.tsv"
    rows = [("sub-01", "train", "ok"), ("sub-02", "train", "lowfield: broken"), ("sub-03", "val", "cohort: broken")]
    write_table(table, [dict(zip(("scan", "split", "status"), row, strict=True)) for row in rows])
    assert usable_scans(table, "train") == ["sub-01"]
    with pytest.raises(UserError, match="no usable scan in split val, but 1 that failed"):
        usable_scans(table, "val")


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory) -> Path:
    """A tiny network trained for seconds on the phantom."""
    torch.manual_seed(0)
    image, labels = phantom()
    person = make_person(image, TABLE.to_classes(labels, "x"), TABLE.n_classes)
    settings = Parcellator(filters=8, levels=2)
    data, network = SliceStacks([person], TABLE, 24, 240, 0, augment=False), build_network(settings, TABLE).train()
    own = class_weights([person], np.arange(TABLE.n_classes))
    weights = {"axial": own, "coronal": own, "sagittal": class_weights([person], TABLE.merged)}
    optimizer = torch.optim.AdamW(network.parameters(), 0.02)
    for step in range(60):
        batch = torch.utils.data.default_collate([data[4 * step + k] for k in range(4)])
        logits = network(batch)
        loss = sum(slice_loss(logits[plane], batch[f"{plane}_target"], weights[plane]) for plane in PLANES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    out = tmp_path_factory.mktemp("model")
    card = {"kind": KIND, "settings": settings.model_dump(mode="json"), "ids": TABLE.ids, "mirrors": TABLE.mirrors}
    save_model(out, network, card)
    return out


def test_a_tiny_network_learns_a_tiny_phantom_and_its_sides(overfitted, tmp_path):
    """The halves look the same, so only their place tells them apart; the scan's own scale must not matter."""
    _, labels = phantom()
    write_scan(tmp_path / "cohort", "sub-01", factor=300)
    parcellate_scans(
        ["sub-01"], tmp_path / "cohort", "anat", "T1w", tmp_path / "cohort", overfitted, tmp_path / "out", "float32"
    )
    record = read_json(flat(tmp_path / "out", "sub-01", "dseg.json"))
    assert (record["status"], record["engine"]) == ("ok", "builtin")
    image = nib.load(flat(tmp_path / "out", "sub-01", "dseg.nii.gz"))
    assert image.get_data_dtype() == np.int16
    predicted = np.asarray(image.dataobj)
    for label in (2, 16, 41):
        dice = (
            2
            * ((predicted == label) & (labels == label)).sum()
            / ((predicted == label).sum() + (labels == label).sum())
        )
        assert dice > 0.8, label


def test_enhanced_results_are_not_rescaled_and_failures_recorded(overfitted, tmp_path):
    cohort, enhanced, out = tmp_path / "cohort", tmp_path / "enhanced", tmp_path / "out"
    image, labels = phantom()
    for scan, factor in (("sub-01", 1.0), ("sub-02", 0.5)):
        write_scan(cohort, scan)
        save_volume(flat(enhanced, scan, "T1w.nii.gz"), image * factor, AFFINE)
        write_json(flat(enhanced, scan, "T1w.json"), {"status": "ok"})
    write_json(flat(enhanced, "sub-03", "T1w.json"), {"status": "lowfield: broken"})
    write_scan(cohort, "sub-04", **{"desc-brain_mask": np.zeros(labels.shape, np.uint8)})
    save_volume(flat(enhanced, "sub-04", "T1w.nii.gz"), image, AFFINE)
    write_json(flat(enhanced, "sub-04", "T1w.json"), {"status": "ok"})
    scans = ["sub-01", "sub-02", "sub-03", "sub-04"]
    parcellate_scans(scans, enhanced, "flat", "T1w", cohort, overfitted, out, "float32")
    status = [read_json(flat(out, scan, "dseg.json"))["status"] for scan in scans]
    assert status[0] == "ok"
    assert status[2] == "enhance: lowfield: broken"
    assert "mask is empty" in status[3]
    assert not flat(out, "sub-03", "dseg.nii.gz").exists()
    half = flat(out, "sub-02", "dseg.nii.gz")  # half as bright is another image, not the same one rescaled
    assert not half.exists() or half.read_bytes() != flat(out, "sub-01", "dseg.nii.gz").read_bytes()


def test_a_volume_without_any_structure_is_a_failure(tmp_path):
    settings = Parcellator(filters=4, levels=2)
    network = build_network(settings, TABLE)
    with torch.no_grad():
        for net in network.nets.values():
            net.classify.bias[0] = 1e4
    card = {"kind": KIND, "settings": settings.model_dump(mode="json"), "ids": TABLE.ids, "mirrors": TABLE.mirrors}
    save_model(tmp_path / "model", network, card)
    write_scan(tmp_path, "sub-01")
    parcellate_scans(["sub-01"], tmp_path, "anat", "T1w", tmp_path, tmp_path / "model", tmp_path / "out", "float32")
    assert "found no structure" in read_json(flat(tmp_path / "out", "sub-01", "dseg.json"))["status"]
    assert not flat(tmp_path / "out", "sub-01", "dseg.nii.gz").exists()


def test_another_kind_of_model_is_refused(tmp_path):
    standard = {"input_mean": 0.0, "input_sd": 1.0, "target_mean": 0.0, "target_sd": 1.0}
    card = {"kind": "unet", "settings": {}, "standardisation": standard}
    save_model(tmp_path / "model", torch.nn.Linear(1, 1), card)
    with pytest.raises(UserError, match="kind 'unet'"):
        parcellate_scans([], tmp_path, "anat", "T1w", tmp_path, tmp_path / "model", tmp_path / "out", "float32")
