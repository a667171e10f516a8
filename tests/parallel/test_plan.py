"""The plan against published numbers and by hand."""

import json

import pytest
import torch

from alexnet import AlexNet, UsageError
from alexnet.parallel.plan import DEVICES, LINKS, Work, against_published, best, plan, step
from alexnet.parallel.sharding import check_layout
from alexnet.runs.recipe import recipes


def test_the_work_of_the_paper_s_network_is_the_published() -> None:
    work = Work.of("paper")
    assert work.convolution_adds + work.full_adds == 724_406_816
    assert work.convolution_parameters + work.full_parameters == 60_965_224
    # The towers meet in front of conv3 (256 feature maps of 13×13), fc6, fc7 and fc8.
    assert work.crossing == (256 * 13 * 13, 256 * 6 * 6, 4096, 4096)


def test_one_device_takes_the_hours_its_rate_was_taken_from() -> None:
    published, modeled, speed_up = against_published()[0]
    assert 90 * modeled.epoch(1_281_167) / 3600 == pytest.approx(published.hours)
    assert speed_up == 1


def test_two_and_four_k20s_are_within_a_tenth_of_the_published_speed_up() -> None:
    for published, _, speed_up in against_published():
        if published.devices <= 4:
            assert speed_up == pytest.approx(published.speed_up, rel=0.1)


def test_bytes_by_hand() -> None:
    work, device, link = Work.of("paper"), DEVICES["k20"], LINKS["pcie2"]
    data = step("data", 4, device, link, work)
    assert data.sent == pytest.approx(2 * 3 / 4 * 60_965_224 * 4)  # a ring's share of all gradients
    towers = step("towers", 2, device, link, work)
    one_way = 128 * (128 * 13 * 13 + 128 * 6 * 6 + 2048 + 2048) * 4
    assert towers.sent == 2 * one_way + 128 * 500 * 4
    assert towers.memory < 0.51 * step("one", 1, device, link, work).memory


def test_slow_links_wait_and_the_best_layout_is_the_fastest_that_fits() -> None:
    fast, slow = plan(8, "h100", "nvlink4"), plan(8, "h100", "1gbe")
    for quick, late in zip(fast, slow, strict=True):
        assert late.seconds >= quick.seconds
    assert best(slow, 8).seconds == min(row.seconds for row in slow if row.devices == 8)
    assert best(plan(2, "gtx580", "pcie2", batch=128), 1).memory < 3e9
    assert best(plan(1, "gtx580", "pcie2", batch=4096), 1) is None


def test_a_measured_rate_is_taken() -> None:
    (alone,) = plan(1, rate=1000)
    assert alone.epoch(1_281_167) == pytest.approx(1281.167, rel=1e-6)


def test_the_command_prints_it_and_says_what_is_wrong(command) -> None:
    done = command("plan", "--devices", 4, "--json")
    assert {row["devices"] for row in json.loads(done.stdout)} == {1, 2, 4}
    done = command("plan", "--devices", 4, "--gpu", "h10")
    assert done.returncode == 2
    assert "unknown device 'h10'; choose from: gtx580" in done.stderr
    with pytest.raises(UsageError, match="must be at least 1"):
        plan(0)


@pytest.mark.parametrize("variant", ["resnet18", "lenet5-1998"])
@pytest.mark.parametrize("layout", ["towers", "one-weird-trick"])
def test_what_is_alexnets_own_refuses_other_networks_in_one_line(variant, layout):
    with torch.device("meta"):
        network = AlexNet(variant, 3)
    with pytest.raises(UsageError, match=f"{variant}|--parallel {layout}") as error:
        check_layout(layout, network, recipes()["paper"], 1000, 2)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="--fc-batch-size is for networks with fully connected layers"):
        check_layout(None, network, recipes()["paper"].override({"fc_batch_size": 64}), 1000)
