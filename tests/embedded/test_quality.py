import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.embedded import model_directory
from engine.embedded.quality.accuracy import by_attribute, chance_by_attribute
from engine.embedded.quality.frechet import frechet_distance, gaussian_distance
from engine.embedded.quality.generate import Generator, Order, load_generator
from engine.embedded.quality.markdown import BEGIN, END, MarkerError, fragment, insert
from engine.embedded.quality.measure import Measurement, draw_curves
from engine.embedded.quality.pairs import Pairs, choose_pairs
from engine.embedded.quality.plot import COLOURS, Panel, plot
from engine.embedded.quality.reader import FEATURES, Reader
from engine.embedded.quality.readings import Readings, Store, fingerprint
from engine.embedded.quality.reconstruction import by_style
from engine.embedded.quality.report import assemble, complete
from engine.embedded.quality.settings import AXES, MAIN, MAIN_SETTINGS, along
from engine.embedded.quality.tiles import Tile, sheet
from engine.embedded.recipe.data import Drawings, draw, identity_of, is_held_out
from engine.embedded.recipe.references import NEUTRAL
from engine.embedded.world import IDENTITY_VALUES, SCENE_VALUES, render
from tests.tinymodels import open_pipeline

NAMES = (*IDENTITY_VALUES, *SCENE_VALUES)
WHO = len(IDENTITY_VALUES)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Drawings:
    return draw(tmp_path_factory.mktemp("world"), persons=6, scenes=3, seed=1_000_003, held_out=True)


@pytest.fixture(scope="module")
def pairs(drawings: Drawings) -> Pairs:
    return choose_pairs(drawings, 4)


def test_pairs_are_held_out_people_whose_reference_is_another_scene(pairs: Pairs) -> None:
    labels = pairs.drawings.labels
    for target, elsewhere, spare in zip(pairs.target, pairs.elsewhere, pairs.spare, strict=True):
        assert is_held_out(identity_of(labels[target]))
        for other in (elsewhere, spare):
            assert other != target
            assert labels[other, :WHO].tolist() == labels[target, :WHO].tolist()
        assert labels[elsewhere, WHO:].tolist() != labels[target, WHO:].tolist()
    assert len({tuple(labels[row, :WHO]) for row in pairs.target}) == len(pairs)


def test_a_reference_is_the_drawing_that_the_setting_names(pairs: Pairs) -> None:
    elsewhere = pairs.reference(1, MAIN)
    assert elsewhere is not None
    np.testing.assert_array_equal(elsewhere, pairs.drawings.images[pairs.elsewhere[1]])
    plain = render(identity_of(pairs.labels[1]), NEUTRAL, size=128)
    neutral = pairs.reference(1, MAIN_SETTINGS["neutral"])
    assert neutral is not None
    np.testing.assert_array_equal(neutral, np.asarray(plain))
    assert pairs.reference(1, MAIN_SETTINGS["text"]) is None


def test_more_pairs_begin_with_the_same_ones(drawings: Drawings, pairs: Pairs) -> None:
    more = choose_pairs(drawings, 6)
    assert more.plain[:4] == pairs.plain
    assert more.described[:4] == pairs.described
    assert more.elsewhere[:4].tolist() == pairs.elsewhere.tolist()
    with pytest.raises(ValueError, match="as many people"):
        choose_pairs(drawings, 7)


def test_only_a_describing_prompt_says_who(pairs: Pairs) -> None:
    for number in range(len(pairs)):
        plain, described = (pairs.prompt(number, MAIN_SETTINGS[name]) for name in ("reference", "text"))
        assert "skin" not in plain
        assert len(described) > len(plain)


def test_distance_of_gaussians_is_the_closed_form() -> None:
    mean_a, mean_b = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    deviation_a, deviation_b = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 0.0])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    distance = gaussian_distance(
        turn @ mean_a,
        turn @ np.diag(deviation_a**2) @ turn.T,
        turn @ mean_b,
        turn @ np.diag(deviation_b**2) @ turn.T,
    )
    # Of commuting covariances: |m - n|^2 + sum (s - t)^2.
    assert distance == pytest.approx(5.0 + 4.0 + 2.25)


def test_distance_of_samples_is_symmetric_and_zero_to_itself_even_where_singular() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(20, 32)), random.normal(1.0, 2.0, size=(24, 32))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, a + 2.0) == pytest.approx(4.0 * 32, rel=1e-6)
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(a, np.full_like(b, np.nan))


def test_chance_is_the_accuracy_over_all_other_pictures() -> None:
    random = np.random.default_rng(2)
    read, labels = (random.integers(0, 3, (7, 2), dtype=np.uint8) for _ in range(2))
    wanted = [
        np.mean([read[i, a] == labels[j, a] for i in range(7) for j in range(7) if i != j]) for a in range(2)
    ]
    chance = chance_by_attribute(read, labels, ("x", "y"))
    assert list(chance.values()) == pytest.approx(wanted)
    assert by_attribute(labels, labels, ("x", "y")) == {"x": 1.0, "y": 1.0}
    with pytest.raises(ValueError, match="attributes"):
        by_attribute(read, labels, ("x",))


def test_what_is_between_the_markers_is_replaced_and_nothing_else() -> None:
    text = f"# Card\n\n{BEGIN}\nold\n{END}\n\n## Limits\n"
    once = insert(text, "new | table\n")
    assert once == f"# Card\n\n{BEGIN}\n\nnew | table\n\n{END}\n\n## Limits\n"
    assert insert(once, "new | table") == once
    assert insert("# Card\n", "table") == f"# Card\n\n{BEGIN}\n\ntable\n\n{END}\n"


@pytest.mark.parametrize("text", [BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_broken_markers_are_refused(text: str) -> None:
    with pytest.raises(MarkerError):
        insert(text, "table")


def test_readings_are_kept_by_setting_and_too_few_are_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    two = Readings(read=np.ones((2, 3), dtype=np.uint8), features=np.zeros((2, 4)))
    store.keep(MAIN, two.then(two))
    kept = complete(store, MAIN, 3)
    assert kept is not None
    assert (kept.read.shape, kept.features.shape) == ((3, 3), (3, 4))
    assert complete(store, MAIN, 5) is None
    assert store.readings(replace(MAIN, steps=7)) is None


def test_other_weights_have_another_store(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a")
    two.write_bytes(b"b")
    before = fingerprint([one, two])
    assert before == fingerprint([two, one])
    two.write_bytes(b"c")
    assert fingerprint([one, two]) != before


def test_every_axis_passes_through_the_main_setting() -> None:
    assert all(along(axis).count(MAIN) == 1 for axis in AXES)
    with pytest.raises(ValueError, match="reference"):
        replace(MAIN, reference="mirror")


def test_a_plot_shows_its_curves() -> None:
    curves = {"who": [(0.0, 0.2), (1.0, 0.8)], "scene": [(0.0, 0.9), (1.0, 0.4)]}
    panel = Panel(title="A title", curves=curves, chosen=1.0)
    image = plot([panel, panel])
    assert image.size == (800, 300)
    pixels = np.asarray(image).reshape(-1, 3).astype(int)
    for colour in COLOURS[:2]:
        assert (np.abs(pixels - colour).sum(axis=1) < 12).sum() > 100


def test_a_sheet_holds_its_tiles_and_leaves_places_free() -> None:
    red = Tile(picture=np.full((128, 128, 3), (255, 0, 0), dtype=np.uint8), caption="word " * 60)
    pixels = np.asarray(sheet("Title", "note", [[red, red], [Tile(), red]]))
    assert (pixels == (255, 0, 0)).all(axis=2).sum() == 3 * 192 * 192
    with pytest.raises(ValueError, match="picture"):
        sheet("Title", "note", [[Tile()]])


def test_means_are_taken_by_style(pairs: Pairs) -> None:
    means = by_style(np.array([1.0, 2.0, 3.0, 6.0]), pairs.labels)
    assert means["all"] == 3.0
    assert set(means) <= {"all", *SCENE_VALUES["style"]}


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator(model_directory(), buckets=(1, 8))


def test_pictures_in_a_batch_are_diffusers_pictures(generator: Generator, pairs: Pairs) -> None:
    setting = replace(MAIN, steps=4)
    orders = [
        Order(prompt=pairs.plain[n], reference=pairs.reference(n, setting), seed=n, setting=setting)
        for n in range(3)
    ]
    assert sum(generator.generate(orders)) == 3
    ours = generator.take()
    assert ours.shape == (3, 128, 128, 3)
    (adapter,) = (path.stem for path in (model_directory() / "ip_adapter").glob("*.safetensors"))
    pipeline = open_pipeline(model_directory(), adapter=adapter)
    pipeline.set_ip_adapter_scale(setting.ip_adapter_scale)
    reference = orders[1].reference
    assert reference is not None
    theirs = pipeline(
        orders[1].prompt,
        ip_adapter_image=Image.fromarray(reference),
        guidance_scale=setting.guidance_scale,
        num_inference_steps=setting.steps,
        generator=torch.Generator().manual_seed(1),
    ).images[0]
    assert np.abs(ours[1].astype(int) - np.asarray(theirs).astype(int)).max() <= 2


def test_a_report_grows_part_by_part(
    generator: Generator, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {name: replace(setting, steps=1) for name, setting in MAIN_SETTINGS.items()}
    points = [replace(MAIN, steps=steps) for steps in (1, 2)]
    for module in ("measure", "report"):
        monkeypatch.setattr(f"engine.embedded.quality.{module}.MAIN_SETTINGS", quick)
        monkeypatch.setattr(f"engine.embedded.quality.{module}.AXES", {"steps": (1, 2)})
        monkeypatch.setattr(f"engine.embedded.quality.{module}.along", lambda axis: points)
    monkeypatch.setattr("engine.embedded.quality.measure.Generator", lambda weights: generator)
    store = Store(tmp_path / "store")
    work = Measurement(weights=model_directory(), reader=Reader().eval(), pairs=pairs, store=store)
    images = tmp_path / "images"

    work.vae(images)
    first = assemble(store, pairs, NAMES, grid_pairs=2)
    assert "main" not in first
    assert "Not measured yet on these weights: main, grid, sheets." in fragment(first, "images")
    work.main()
    work.grid(2)
    report = assemble(store, pairs, NAMES, grid_pairs=2)
    draw_curves(report, images / "curves.png")
    report = json.loads(json.dumps(report))
    assert set(report["main"]) >= {*MAIN_SETTINGS, "chance", "drawings"}
    assert set(report["frechet"]["distance"]) == {*MAIN_SETTINGS, "targets", "reconstructed"}
    kept = store.readings(quick["reference"])
    assert kept is not None
    assert kept.features.shape == (4, FEATURES)
    expected = by_attribute(kept.read[:2], pairs.labels[:2], NAMES)
    assert report["grid"]["steps"][0]["by_attribute"] == expected
    table = fragment(report, "images")
    for words in ("**who, mean**", "| all |", "Frechet", "neutral reference", "images/curves.png"):
        assert words in table
    assert {path.name for path in images.iterdir()} == {"curves.png", "eyes.png"}
