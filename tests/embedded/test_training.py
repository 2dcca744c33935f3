"""The recipe's own parts: optimiser, data parallelism, resuming, batches, and the adapter's training twin."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from engine.embedded.recipe.muon import MuonAdamW
from engine.embedded.recipe.supply import supply
from engine.embedded.recipe.training import Plan, StageMissingError, Start, averaged, train
from engine.embedded.recipe.workers import Crew, run_crew

ALONE = Crew(rank=0, size=1)


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Flatten(), nn.Linear(24 * 16, 16))


def one_step(network: nn.Sequential, crew: Crew) -> None:
    optimiser = MuonAdamW(network, matrix_rate=0.1, vector_rate=0.01)
    torch.manual_seed(1)
    network(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimiser.step(crew, 1.0)


def test_muon_moves_a_matrix_by_its_rate_in_every_direction() -> None:
    network = small_network()
    before = network[1].weight.detach().clone()
    one_step(network, ALONE)
    moved = (network[1].weight.detach() - before).flatten(1)
    # The quintic leaves singular values between about 0.7 and 1.2.
    values = torch.linalg.svdvals(moved) / 0.1
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_pictures_channels_norms_and_biases_go_to_adamw() -> None:
    network = small_network()
    optimiser = MuonAdamW(network, matrix_rate=0.1, vector_rate=0.01)
    assert [m.shape for m in optimiser.matrices] == [network[1].weight.shape, network[3].weight.shape]
    assert len(optimiser.adamw.param_groups[0]["params"]) == 4


def leave_weights(crew: Crew, out: Path) -> None:
    network = small_network()
    one_step(network, crew)
    if crew.leads:
        torch.save(network.state_dict(), out)


def test_two_workers_take_the_step_that_one_takes(tmp_path: Path) -> None:
    for size in (1, 2):
        run_crew(partial(leave_weights, out=tmp_path / f"{size}.pt"), size=size, directory=tmp_path)
    one, two = (torch.load(tmp_path / f"{size}.pt") for size in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
    assert not list(tmp_path.glob("rendezvous*"))


class Counted:
    """Count the steps of a run, and remember where it started."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.starts: list[int] = []

    def __call__(self, start: Start) -> Callable[[], Tensor]:
        self.starts.append(start.step)
        return lambda: self.network(torch.randn(2, 3, 8, 8)).square().mean()


def test_a_run_continues_from_its_checkpoint(tmp_path: Path) -> None:
    network = small_network()
    counted, reports = Counted(network), []
    plan = Plan(name="stage", directory=tmp_path, minutes=0.004, matrix_rate=0.01, vector_rate=0.01)
    with pytest.raises(StageMissingError, match="train the stage stage first"):
        averaged(plan.checkpoint)
    train(ALONE, plan, network, counted, lambda weights, progress: reports.append(progress.step))
    longer = Plan(name="stage", directory=tmp_path, minutes=0.008, matrix_rate=0.01, vector_rate=0.01)
    again = Counted(small_network())
    train(ALONE, longer, again.network, again, lambda weights, progress: reports.append(progress.step))
    assert counted.starts == [0]
    assert again.starts == [reports[0] + 1]
    assert reports[1] > reports[0]
    assert averaged(plan.checkpoint).keys() == network.state_dict().keys()
    assert (tmp_path / "stage.csv").exists()


def test_a_checkpoint_leaves_frozen_parameters_alone(tmp_path: Path) -> None:
    network = small_network()
    network[1].requires_grad_(False)
    plan = Plan(name="stage", directory=tmp_path, minutes=0.004, matrix_rate=0.01, vector_rate=0.01)
    train(ALONE, plan, network, Counted(network), lambda weights, progress: None)
    assert set(averaged(plan.checkpoint)) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    other = small_network()
    with torch.no_grad():
        other[1].weight.fill_(1.0)
    other[1].requires_grad_(False)
    train(ALONE, plan, other, Counted(other), lambda weights, progress: None)
    assert (other[1].weight == 1.0).all()
    assert not torch.equal(other[3].weight, small_network()[3].weight)


def test_modes_cover_a_batch_in_their_shares() -> None:
    from engine.embedded.recipe.batches import Batches

    batches = Batches.__new__(Batches)
    object.__setattr__(batches, "random", np.random.default_rng(0))
    counts = np.bincount(batches.modes(100, (0.68, 0.22, 0.10)), minlength=3)
    assert np.abs(counts - [68, 22, 10]).max() <= 1


def test_latents_are_made_again_for_another_encoder(tmp_path: Path) -> None:
    from engine.embedded.recipe.data import Drawings
    from engine.embedded.recipe.latents import encode
    from engine.embedded.recipe.vae import LATENT_CHANNELS, build_vae

    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    drawings = Drawings(images=images, labels=np.zeros((2, 20), dtype=np.uint8), scenes=2)
    vae = build_vae()
    first = encode(ALONE, tmp_path, drawings, vae)
    assert first.shape == (2, LATENT_CHANNELS, 16, 16)
    with torch.no_grad():
        vae.decoder.conv_in.weight.zero_()
    written = (tmp_path / "encoded.npz").stat().st_mtime_ns
    assert (encode(ALONE, tmp_path, drawings, vae) == first).all()
    assert (tmp_path / "encoded.npz").stat().st_mtime_ns == written, "the decoder has no say in latents"
    with torch.no_grad():
        vae.quant_conv.bias.add_(1)
    assert np.allclose(encode(ALONE, tmp_path, drawings, vae)[:, 0], first[:, 0] + 1, atol=0.1)


def test_training_adapter_equals_diffusers() -> None:
    from diffusers import UNet2DConditionModel

    from engine.embedded.recipe.adapter import AdaptedUnet
    from engine.embedded.recipe.unet import build_unet
    from engine.embedded.recipe.vae import LATENT_CHANNELS

    torch.manual_seed(0)
    theirs: UNet2DConditionModel = build_unet().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.05)
    plain = build_unet()
    plain.load_state_dict(theirs.state_dict())
    ours = AdaptedUnet(plain, embed_width=32).eval()
    adapter = ours.adapter_weights()
    trained = {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert len(trained) == len(adapter)
    assert all("projection" in name or "_ip" in name for name in trained)
    state = {
        part: {k.removeprefix(f"{part}."): v for k, v in adapter.items() if k.startswith(f"{part}.")}
        for part in ("image_proj", "ip_adapter")
    }
    theirs._load_ip_adapter_weights([state])
    sample, embeds = torch.randn(2, LATENT_CHANNELS, 16, 16), torch.randn(2, 32)
    text = torch.randn(2, 77, theirs.config.cross_attention_dim)
    steps = torch.tensor([900, 10])
    with torch.no_grad():
        mine = ours(sample, steps, text, embeds)
        other = theirs(sample, steps, text, added_cond_kwargs={"image_embeds": [embeds[:, None]]}).sample
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def numbers(start: Start) -> Callable[[], tuple[Tensor, Tensor]]:
    random = np.random.default_rng([start.step, start.rank])
    return lambda: (torch.tensor(start.rank), torch.from_numpy(random.integers(0, 9, 3)))


def draw_ahead(worker: int) -> None:
    gpu = Crew(rank=worker, size=1, device=torch.device("meta"), enlarge=8)
    assert gpu.rows(32) == 256
    ahead, here = supply(gpu, Start(7, 0), numbers), supply(ALONE, Start(7, 0), numbers)
    drawn = [ahead() for _ in range(12)]
    assert {int(rank) for rank, _ in drawn} == set(range(6))
    assert torch.equal(next(batch for rank, batch in drawn if rank == 0), here()[1])


def test_batches_are_drawn_in_other_processes_for_a_gpu_and_here_for_a_cpu() -> None:
    # In a process of its own: the loader leaves a handler of SIGCHLD behind.
    spawn(draw_ahead, nprocs=1)
