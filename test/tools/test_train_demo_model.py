# SPDX-License-Identifier: Apache-2.0
"""The training of the demo model, at a size that takes seconds."""

from __future__ import annotations

import itertools
import multiprocessing
from dataclasses import replace
from multiprocessing import forkserver

import pytest
import torch
from tiny_training import TINY

from tools import train_demo_model as command
from tools.training import clips as clips_module
from tools.training import workers
from tools.training.clips import ClipPool, Windows, evaluation_windows
from tools.training.evaluate import Answers, angle, position_error, run, score
from tools.training.export import export, load_average
from tools.training.gauge import set_mean_logit
from tools.training.initial import initial_network, start_refiner
from tools.training.losses import _pose_error, inverse, quaternion
from tools.training.muon import Muon, orthogonal
from tools.training.settings import WIDTH, TrainingSettings
from tools.training.streams import Streams
from tools.training.trainer import CURVE, LAST, Trainer
from tools.training.unroll import unroll
from ttt3r_ros.network.checkpoint import load_network, read_checkpoint
from ttt3r_ros.network.refiner import Refiner

SETTINGS = TrainingSettings(
    minutes=1,
    frames_per_step=4,
    clips_in_memory=4,
    clips_at_once=2,
    clip_frames=4,
    groups_at_start=1,
    stages=((0.0, 2), (0.5, 4)),
    warmup_steps=1,
    evaluate_every_s=1e9,
    save_every_s=1e9,
)


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def __call__(self) -> float:
        return float(next(self._seconds))


@pytest.fixture(scope="module")
def pool():
    pool = ClipPool(capacity=4, group_size=2, frames=4, device="cpu")
    pool.grow()
    return pool


@pytest.fixture(scope="module")
def held_out():
    return evaluation_windows([900_000, 900_001], images=16)


def windows_of(pool, seed=0, count=2, images=2):
    return pool.windows(count, images, torch.Generator().manual_seed(seed))


def test_training_on_the_same_windows_makes_their_loss_fall(tmp_path, pool):
    trainer = Trainer(TINY, SETTINGS, tmp_path)
    windows = windows_of(pool)
    totals = [trainer.fit(windows)["total"] for _ in range(12)]
    assert totals[-1] < 0.7 * totals[0]


def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "halves").mkdir()
    whole = Trainer(TINY, SETTINGS, tmp_path / "whole", clock=Clock())
    whole.train(most_steps=6)
    Trainer(TINY, SETTINGS, tmp_path / "halves", clock=Clock()).train(most_steps=4)
    resumed = Trainer(TINY, SETTINGS, tmp_path / "halves", clock=Clock())
    resumed.restore()
    resumed.train(most_steps=2)
    assert resumed.steps == whole.steps and resumed.images == whole.images
    assert resumed.seconds == whole.seconds
    for a, b in ((resumed.network, whole.network), (resumed.average, whole.average)):
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y), name


def test_training_ends_with_its_time_and_leaves_a_checkpoint_and_a_curve(tmp_path, held_out):
    settings = replace(SETTINGS, minutes=0.1)
    trainer = Trainer(TINY, settings, tmp_path, held_out=held_out, clock=Clock())
    trainer.train()
    assert trainer.progress >= 1 and trainer.steps == 6
    assert (tmp_path / LAST).exists()
    header, *rows = (tmp_path / CURVE).read_text().splitlines()
    assert header.startswith("minutes,steps,images,reset_interval,abs_rel") and len(rows) == 2


def test_windows_get_longer_and_rates_fall_to_zero_with_the_time():
    assert SETTINGS.window(0.0) == 2 and SETTINGS.window(0.5) == 4
    rates = [SETTINGS.rate(progress, step=100) for progress in (0.0, 0.3, 0.7, 1.0)]
    assert rates[0] == rates[1] == 1.0 and 0 < rates[2] < 1 and rates[3] == 0


def test_the_exported_file_answers_as_the_trained_network_up_to_half_precision(tmp_path, held_out):
    trainer = Trainer(TINY, SETTINGS, tmp_path)
    trainer.train(most_steps=3)
    network, images, _ = load_average(tmp_path / LAST, TINY, "ttt3r")
    export(network, tmp_path / "small.safetensors", {"segment.reset_interval": 8}, "a test")
    loaded = load_network(tmp_path / "small.safetensors", update_rule="cut3r")
    said = read_checkpoint(tmp_path / "small.safetensors")
    assert images == 12 and said.image_size == WIDTH
    assert said.settings == {"segment.reset_interval": 8} and "Apache-2.0" in said.licence
    ours = run(trainer.average, held_out.image[:, :4], reset_interval=3)
    theirs = run(loaded, held_out.image[:, :4], reset_interval=3)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=5e-3, atol=5e-3)


def test_a_training_from_weights_begins_with_their_answers_and_the_wanted_mean_logit(
    tmp_path, held_out
):
    weights = initial_network(TINY, seed=5, update_rule="cut3r")
    trainer = Trainer(TINY, SETTINGS, tmp_path, weights=weights.state_dict())
    image = held_out.image[:, :4]
    before = unroll(weights, image).logits.mean()
    set_mean_logit(trainer.network, image, SETTINGS.mean_logit)
    after = unroll(trainer.network, image).logits.mean()
    assert before > 2
    torch.testing.assert_close(after, torch.tensor(SETTINGS.mean_logit), rtol=0, atol=0.1)
    for a, b in zip(run(trainer.network, image, 0), run(weights, image, 0), strict=True):
        assert (a - b).abs().mean() < 0.01  # softmax hardly sees the difference


def test_the_command_goes_on_from_an_exported_file(tmp_path, monkeypatch, held_out):
    first = initial_network(TINY, seed=5, update_rule="cut3r")
    export(first, tmp_path / "first.safetensors", {}, "a test")
    monkeypatch.setattr(command, "DEMO_NETWORK", TINY)
    monkeypatch.setattr(command, "evaluation_windows", lambda *_, **__: held_out)
    monkeypatch.setattr(
        command, "settings_from_weights", lambda minutes, seed: replace(SETTINGS, minutes=minutes)
    )
    words = ["--output", str(tmp_path / "out"), "--minutes", "0.002"]
    monkeypatch.setattr(
        "sys.argv", ["train", *words, "--from", str(tmp_path / "first.safetensors")]
    )
    command.main()
    network, images, _ = load_average(tmp_path / "out" / LAST, TINY, "cut3r")
    assert images > 0
    moved = network.pose_token - first.pose_token
    assert 0 < moved.norm() < 0.1 * first.pose_token.norm()
    with pytest.raises(SystemExit):  # what is there is not written over
        command.main()


def test_nothing_but_the_helpers_learns_in_the_first_steps(tmp_path, pool):
    trainer = Trainer(TINY, replace(SETTINGS, helper_steps=2), tmp_path)
    network = {name: x.clone() for name, x in trainer.network.state_dict().items()}
    helpers = [x.clone() for x in trainer.helpers.parameters()]
    windows = windows_of(pool)
    for _ in range(2):
        trainer.fit(windows)
    for name, x in trainer.network.state_dict().items():
        assert torch.equal(x, network[name]), name
    assert all((a != b).any() for a, b in zip(trainer.helpers.parameters(), helpers, strict=True))
    trainer.fit(windows)
    assert not torch.equal(trainer.network.pose_token, network["pose_token"])


def test_the_penalty_draws_the_mean_logit_to_its_place(tmp_path, pool):
    settings = replace(SETTINGS, logit_weight=10.0, mean_logit=-0.8)
    trainer = Trainer(TINY, settings, tmp_path)
    windows = windows_of(pool)
    losses = [trainer.fit(windows)["logit"] for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]


def test_streams_carry_the_state_of_their_last_window_until_they_end(pool):
    network = initial_network(TINY, seed=0, update_rule="cut3r").requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    streams, age, carried, last = Streams(), torch.zeros(3), 0, network.initial_state(3)
    for _ in range(12):
        windows, new = streams.windows(pool, 3, 2, 4, generator)
        state = streams.state(network, new)
        fresh = network.initial_state(3)
        assert torch.equal(state.fresh, new)
        assert torch.equal(state.tokens[new], fresh.tokens[new])
        if carried:
            assert torch.equal(state.tokens[~new], last.tokens[~new])
            assert torch.equal(state.memory[~new], last.memory[~new])
        start = windows.T_first_camera[:, 0]
        identity = torch.eye(4).expand(3, 4, 4)
        torch.testing.assert_close(start[new], identity[new], rtol=0, atol=1e-5)
        age = torch.where(new, torch.zeros(3), age + 2)
        assert age.max() <= 6
        last = unroll(network, windows.image, state).state
        streams.keep(last)
        carried += int((~new).sum())
    assert carried > 5


def test_poses_of_a_stream_are_told_from_its_first_image(pool):
    """The motion between two windows is that of the clip, however long the stream."""
    generator = torch.Generator().manual_seed(2)
    streams = Streams()
    first, new = streams.windows(pool, 4, 2, 100, generator)
    assert new.all()
    second, new = streams.windows(pool, 4, 2, 100, generator)
    assert not new.any()
    apart = inverse(first.T_first_camera[:, -1]) @ second.T_first_camera[:, 0]
    step = inverse(first.T_first_camera[:, 0]) @ first.T_first_camera[:, 1]
    assert apart[:, :3, 3].norm(dim=1).max() < 3 * step[:, :3, 3].norm(dim=1).max() + 1e-4


def test_a_camera_that_is_lost_counts_less_than_in_proportion_and_a_small_error_fully():
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.tensor([0.0, 0.01, 3.0])
    none, small, lost = (float(_pose_error(pose[None], torch.eye(4)[None])) for pose in poses)
    assert none < 1e-4 and small == pytest.approx(0.01, rel=0.03)
    assert 0.5 < lost < 1.0


def test_carried_windows_come_late_and_their_mean_length_rises():
    settings = replace(SETTINGS, carry_from=0.5, carried_images=(48, 240))
    assert settings.carried(0.4) == 0 and settings.carried(0.5) == 48
    assert settings.carried(0.75) == 144 and settings.carried(1.0) == 240


def test_a_step_with_carried_windows_learns_from_both_kinds(tmp_path):
    settings = replace(SETTINGS, carry_from=0.0, frames_per_step=8)
    trainer = Trainer(TINY, settings, tmp_path, clock=Clock())
    trainer.train(most_steps=3)
    assert trainer.steps == 3 and trainer.images == 24
    assert all(x.isfinite().all() for x in trainer.network.parameters())


def test_cameras_of_all_domains_take_turns_and_the_robots_keep_their_share():
    shares = [domain.style for domain in clips_module.DOMAINS]
    assert shares.count("robot") / len(shares) == 0.4
    assert {"free", "wheeled", "handheld", "robot"} == set(shares)
    degrees = torch.tensor([45.0, 67.38, 100.0])
    expected = torch.tensor([1.2071, 0.75, 0.41955])
    torch.testing.assert_close(clips_module.focal_share(degrees), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("domain", sorted(set(clips_module.DOMAINS)))
def test_clips_of_every_domain_have_pictures_depth_and_a_moving_camera(domain):
    times = torch.arange(3, dtype=torch.float64) * 0.1
    clips = clips_module.render_clips([3, 4], times, torch.tensor([60.0, 150.0]), domain=domain)
    assert clips.rgb.float().std() > 10 and clips.depth_m.min() > 0.1
    assert (clips.rough == domain.rough).all()
    steps = clips.T_world_camera[..., :3, 3].diff(dim=1).norm(dim=-1)
    assert (steps > 1e-4).all() and (steps < 0.15).all()


def test_pictures_of_rough_cameras_vary_more_than_the_robots(pool):
    windows = windows_of(pool, count=8)
    plain, rough = (
        windows.develop(torch.Generator().manual_seed(0), torch.full((8,), level))
        for level in (0.0, 1.0)
    )
    change = [(x.image - windows.image).abs().mean() for x in (plain, rough)]
    assert change[1] > 1.3 * change[0]
    assert rough.image.min() >= -1 and rough.image.max() <= 1
    assert torch.equal(rough.depth_m, windows.depth_m)


@torch.no_grad()
def test_unrolling_goes_on_from_a_state_as_if_the_window_had_been_one(pool):
    network = initial_network(TINY, seed=0, update_rule="cut3r")
    image = windows_of(pool, images=4).image
    whole = unroll(network, image)
    half = unroll(network, image[:, :2])
    rest = unroll(network, image[:, 2:], half.state)
    torch.testing.assert_close(rest.logits, whole.logits[2:])
    pose = torch.unflatten(whole.prediction.pose, 0, (2, 4))[:, 2:].flatten(0, 1)
    torch.testing.assert_close(rest.prediction.pose, pose)


@torch.no_grad()
def test_the_logits_are_those_of_the_gain(pool):
    network = initial_network(TINY, seed=0, update_rule="ttt3r")
    image = windows_of(pool, images=2).image
    set_mean_logit(network, image, 0.0)
    logits = unroll(network, image).logits
    state, _ = network.step(network.initial_state(2), image[:, 0])
    _, prediction = network.step(state, image[:, 1])
    torch.testing.assert_close(logits[1].sigmoid(), prediction.gain)


@torch.no_grad()
def test_unrolling_a_window_answers_as_its_steps_one_by_one(pool):
    network = initial_network(TINY, seed=0, update_rule="ttt3r")
    image = windows_of(pool, images=3).image
    prediction = unroll(network, image).prediction
    state = network.initial_state(2)
    for t in range(3):
        state, single = network.step(state, image[:, t])
        torch.testing.assert_close(prediction.points.unflatten(0, (2, 3))[:, t], single.points)
        torch.testing.assert_close(prediction.pose.unflatten(0, (2, 3))[:, t], single.pose)


def test_an_untrained_network_sees_everything_at_two_metres_and_does_not_move(pool):
    network = initial_network(TINY, seed=0, update_rule="ttt3r")
    _, prediction = network.step(network.initial_state(2), windows_of(pool).image[:, 0])
    assert (prediction.points[..., 2] - 2).abs().mean() < 0.3
    assert prediction.pose[:, :3].norm(dim=1).max() < 0.3


@pytest.mark.parametrize("seed", range(6))
def test_points_of_a_window_meet_in_the_first_camera(pool, seed):
    """Depth, rays and poses fit together, also when mirrored and reversed."""
    windows = windows_of(pool, seed)
    points = windows.depth_m[:, 1, ..., None] * windows.rays()
    T = windows.T_first_camera[:, 1]
    in_first = torch.einsum("bij,bhwj->bhwi", T[:, :3, :3], points) + T[:, None, None, :3, 3]
    u, v = (
        windows.focal[:, None, None] * in_first[..., i] / in_first[..., 2] + centre
        for i, centre in enumerate(clips_module.principal_point())
    )
    height, width = points.shape[1:3]
    inside = (u > 0) & (u < width - 1) & (v > 0) & (v < height - 1) & (in_first[..., 2] > 0.1)
    batch = torch.arange(len(u))[:, None, None].expand_as(u)
    seen = windows.depth_m[batch, 0, v.round().long().clamp(0, height - 1),
                           u.round().long().clamp(0, width - 1)]  # fmt: skip
    relative = ((seen - in_first[..., 2]) / seen).abs()[inside]
    assert inside.float().mean() > 0.3
    assert relative.median() < 0.02


def test_a_mirrored_window_is_seen_by_a_camera_whose_turns_are_mirrored(pool):
    windows = windows_of(pool)
    twice = windows.mirror(torch.tensor([True, True])).mirror(torch.tensor([True, True]))
    torch.testing.assert_close(twice.T_first_camera, windows.T_first_camera)
    once = windows.mirror(torch.tensor([True, False]))
    assert torch.equal(once.image[0], windows.image[0].flip(-1))
    assert torch.equal(once.image[1], windows.image[1])
    height = (windows.T_world_first @ windows.T_first_camera[:, 1])[:, 2, 3]
    mirrored = (once.T_world_first @ once.T_first_camera[:, 1])[:, 2, 3]
    torch.testing.assert_close(mirrored, height)


def test_a_pool_rendered_again_is_the_same_pool(pool):
    again = ClipPool(capacity=4, group_size=2, frames=4, device="cpu")
    again.restore(pool.groups)
    a, b = windows_of(again, seed=3), windows_of(pool, seed=3)
    for name in Windows.__slots__:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@torch.no_grad()
def test_a_refiner_begins_as_a_blur_that_leaves_levels_and_ramps_what_they_are():
    refiner = Refiner(20)
    start_refiner(refiner)
    image = torch.rand(1, 32, 32, 3)
    level = torch.rand(4).expand(1, 32, 32, 4).contiguous()
    torch.testing.assert_close(refiner(level, image), level)
    ramp = torch.arange(32.0)[None, None, :, None].expand(1, 32, 32, 4)
    inside = slice(8, 24)
    torch.testing.assert_close(refiner(ramp, image)[:, :, inside], ramp[:, :, inside])
    seam = refiner((ramp > 15).float(), image)[0, 16, :, 0]
    assert seam.diff().max() < 0.5
    assert seam[6] == pytest.approx(0, abs=1e-5) and seam[25] == pytest.approx(1, abs=1e-5)


def test_rooms_for_training_are_no_rooms_for_evaluation():
    with pytest.raises(ValueError, match="900000"):
        evaluation_windows([899_999], images=2)


def test_true_answers_have_no_error(held_out):
    truth = Answers(
        held_out.depth_m, torch.full_like(held_out.depth_m, 2.0), held_out.T_first_camera
    )
    scores = score(truth, held_out)
    assert scores.abs_rel == 0 and scores.delta_125 == 1 and scores.confident == 1
    assert scores.ate_all < 1e-4 and scores.step < 1e-4 and scores.rotation < 1e-3


def test_a_camera_that_never_moves_has_the_error_of_the_constant_guess(held_out):
    still = torch.eye(4).expand_as(held_out.T_first_camera)
    scores = score(Answers(held_out.depth_m, held_out.depth_m, still), held_out)
    assert scores.ratio_all == pytest.approx(1, abs=1e-6)
    assert scores.step == pytest.approx(1, abs=1e-4)


def test_position_errors_forget_a_rigid_motion_but_not_a_scale():
    places = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0))
    c, s = 0.6, 0.8
    turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    assert position_error(places @ turn + 3, places) < 1e-5
    assert position_error(1.5 * places, places) > 0.5


def test_quaternions_angles_and_inverses_are_those_of_the_rotation():
    half = torch.tensor(0.15)
    T = torch.eye(4)
    T[:2, :2] = torch.tensor(
        [[(2 * half).cos(), -(2 * half).sin()], [(2 * half).sin(), (2 * half).cos()]]
    )
    T[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(quaternion(T), torch.tensor([half.cos(), 0, 0, half.sin()]))
    torch.testing.assert_close(angle(T), 2 * half)
    torch.testing.assert_close(inverse(T) @ T, torch.eye(4))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices).float())
    assert values.min() > 0.4 and values.max() < 1.4


def _one_of_two(rank, path):
    """Steps of one of two processes whose gradients differ; the first writes its weights."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path / 'meeting'}", rank=rank, world_size=2
    )
    weights, muon = _three_matrices()
    for weight, gradients in zip(weights, _gradients(), strict=True):
        weight.grad = gradients[rank].clone()
    workers.average_gradients(weights)
    muon.step()
    assert workers.from_first(float(rank)) == 0.0
    torch.save(weights, path / f"{rank}.pt")
    torch.distributed.barrier()  # gloo may abort where one leaves while the other still talks
    torch.distributed.destroy_process_group()


def _three_matrices():
    """An odd number, so that shares differ."""
    weights = [torch.ones(8, 8) for _ in range(3)]
    return weights, Muon(weights, {}, lr=0.1)


def _gradients():
    return torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def test_two_processes_step_as_one_that_has_the_mean_of_their_gradients(tmp_path):
    # Both from one process that has loaded the libraries.
    multiprocessing.set_forkserver_preload([__name__])
    torch.multiprocessing.start_processes(
        _one_of_two, args=(tmp_path,), nprocs=2, start_method="forkserver"
    )
    forkserver._forkserver._stop()
    weights, muon = _three_matrices()
    for weight, gradients in zip(weights, _gradients(), strict=True):
        weight.grad = gradients.mean(dim=0)
    muon.step()
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), weights)
