# SPDX-License-Identifier: Apache-2.0
"""Rooms depend on their seed alone, and keep what they promise about free space."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from plain_geometry import BOX, CYLINDER, clearance

from ttt3r_ros.simulation import make_cluttered_rooms, make_rooms, make_trajectory, render
from ttt3r_ros.simulation.furniture import PARTS, PIECES

SEEDS = range(200)
# Means of colours, depths, places and materials of two rooms, since the first table.
MEASURED = [0.39406479, 2.53768756, 0.4102481, 2.74680955]


def test_a_room_does_not_depend_on_the_other_rooms_of_its_batch():
    batch, alone = make_rooms([5, 6, 7]), make_rooms(6)
    for field in fields(alone):
        if field.name not in ("atlas", "counts"):
            assert torch.equal(getattr(batch, field.name)[1:2], getattr(alone, field.name))


def test_rooms_have_the_promised_extents():
    low, high = make_rooms(SEEDS).size.aminmax(dim=0)
    assert (low >= torch.tensor([3.6, 3.6, 2.4])).all()
    assert (high <= torch.tensor([7.0, 7.0, 3.0])).all()
    assert (high - low > torch.tensor([3.0, 3.0, 0.5])).all()


def test_no_solid_reaches_into_the_free_space():
    rooms = make_rooms(SEEDS)
    assert (rooms.free_high - rooms.free_low > 1.3).all()
    unit = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    for r in range(len(rooms)):
        points = rooms.free_low[r] + unit * (rooms.free_high[r] - rooms.free_low[r])
        assert clearance(rooms[r : r + 1], points).min() > 0


def test_furniture_stands_inside_the_room_and_wall_pieces_do_not_run_into_each_other():
    rooms = make_rooms(SEEDS)
    centre, half = rooms.solid_centre[:, BOX:CYLINDER], rooms.solid_half[:, BOX:CYLINDER]
    yaw = rooms.solid_yaw[:, BOX:CYLINDER, None]
    line = torch.linspace(-1, 1, 9)
    unit = torch.cartesian_prod(line, line)  # over a box's ground plan
    x, y = half[..., None, 0] * unit[:, 0], half[..., None, 1] * unit[:, 1]
    plan = torch.stack((yaw.cos() * x - yaw.sin() * y, yaw.sin() * x + yaw.cos() * y), dim=-1)
    plan = plan + centre[..., None, :2]  # [R, BOXES, 81, 2]
    present = centre[..., 2] > 0
    assert present.double().mean() > 0.8
    within = (plan.abs() <= rooms.size[:, None, None, :2] / 2).flatten(2).all(-1)
    assert within[present].all()
    assert (centre + half)[..., 2].le(rooms.size[:, None, 2])[present].all()
    for wall_piece in range(PIECES - 1):
        for other in range(wall_piece * PARTS + PARTS, (PIECES - 1) * PARTS):
            for box in range(wall_piece * PARTS, wall_piece * PARTS + PARTS):
                offset = plan[:, other] - centre[:, box, None, :2]
                cos, sin = yaw[:, box].cos(), yaw[:, box].sin()
                u = (cos * offset[..., 0] + sin * offset[..., 1]).abs()
                v = (cos * offset[..., 1] - sin * offset[..., 0]).abs()
                hit = (u < half[:, box, None, 0]) & (v < half[:, box, None, 1])
                assert not (hit.any(-1) & present[:, box] & present[:, other]).any()


def test_decals_lie_on_the_faces_of_the_room():
    rooms = make_rooms(SEEDS)
    half = rooms.size[:, None] / 2
    centre = (rooms.decal_low + rooms.decal_high) / 2 - torch.nn.functional.pad(
        half[..., 2:], (2, 0)
    )
    thin = rooms.decal_high - rooms.decal_low < 0.02
    assert (thin.sum(-1) == 1).all()
    assert ((centre.abs() - half).abs()[thin] < 1e-5).all()
    reach = (
        torch.maximum(rooms.decal_high.abs()[..., :2], rooms.decal_low.abs()[..., :2])
        - half[..., :2]
    )
    assert reach.max() < 0.02


def test_rooms_use_all_textures_and_pictures_on_walls_fit_their_frames():
    rooms = make_rooms(SEEDS)
    texture = rooms.materials[..., 0]
    assert texture.unique().numel() == sum(map(len, rooms.atlas.families.values()))
    hanging = slice(-rooms.decal_low.shape[1] + 4, None)
    shown = ("picture", "window", "door")
    numbers = torch.tensor([n for name in shown for n in rooms.atlas.families[name]])
    on_walls = texture[:, hanging][:, :12]
    assert torch.isin(on_walls, numbers.float()).all()
    # v runs once from the lower to the upper end: height times tiles per metre is one tile.
    height = (rooms.decal_high - rooms.decal_low)[:, 4:16, 2]
    tiles = height * rooms.materials[:, hanging, 2][:, :12]
    torch.testing.assert_close(tiles, torch.ones_like(tiles))


def test_first_and_second_colours_differ_in_brightness():
    change = make_rooms(SEEDS).materials[..., 8:11]
    assert change.abs().amax(-1).min() > 0.05
    assert change.abs().amax(-1).mean() > 0.3


def test_a_slice_of_rooms_is_those_rooms():
    rooms = make_rooms([1, 2, 3])
    assert torch.equal(rooms[1:].materials, make_rooms([2, 3]).materials)
    assert len(rooms[1:]) == 2


@pytest.mark.parametrize("seeds", [-1, [], [3, -2]])
def test_seeds_that_name_no_room_are_refused(seeds):
    with pytest.raises(ValueError, match="seeds"):
        make_rooms(seeds)


def test_a_room_is_what_it_was_when_the_tables_were_measured():
    """Figures in the documentation are of these very rooms and paths."""
    rooms = make_rooms([1_000_000, 1_000_001])
    path = make_trajectory([1_000_000, 1_000_001], rooms).pose(torch.tensor([0.0, 7.5]))
    picture = render(rooms, path, (48.0, 48.0, 31.5, 23.5), 48, 64)
    means = [float(x.double().mean()) for x in (*picture, path[..., :3, 3], rooms.materials)]
    assert means == pytest.approx(MEASURED, rel=1e-5)


def test_a_cluttered_room_does_not_depend_on_the_other_rooms_of_its_batch():
    batch, alone = make_cluttered_rooms([5, 6, 7]), make_cluttered_rooms(6)
    for field in fields(alone):
        if field.name not in ("atlas", "counts"):
            assert torch.equal(getattr(batch, field.name)[1:2], getattr(alone, field.name))


def test_cluttered_rooms_are_rooms_halls_and_corridors():
    size = make_cluttered_rooms(SEEDS).size
    low, high = size.aminmax(dim=0)
    assert (low >= torch.tensor([2.6, 1.7, 2.2])).all()
    assert (high <= torch.tensor([14.0, 14.0, 5.0])).all()
    halls = (size[:, :2].amin(1) > 6).double().mean()
    corridors = (size[:, 1] < 2.6).double().mean()
    assert 0.15 < halls < 0.35 and 0.15 < corridors < 0.35


def test_nothing_reaches_into_the_free_space_of_cluttered_rooms_which_begins_at_any_height():
    rooms = make_cluttered_rooms(SEEDS)
    extent = rooms.free_high - rooms.free_low
    assert (extent[:, :2] >= 0.59).all() and (extent[:, 2] >= 0.19).all()
    assert rooms.free_low[:, 2].min() < 0.2 and rooms.free_low[:, 2].max() > 1.7
    unit = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    for r in range(len(rooms)):
        points = rooms.free_low[r] + unit * extent[r]
        assert clearance(rooms[r : r + 1], points).min() > -1e-4


def test_some_surfaces_of_cluttered_rooms_have_no_pattern():
    rooms = make_cluttered_rooms(SEEDS)
    (plain,) = {rooms.atlas.families["plain"][0]}
    share = (rooms.materials[..., 0] == plain).double().mean()
    assert 0.2 < share < 0.4
