"""What losses of likeness are blind to, and what they are not."""

import pytest
import torch
from torchvision.models import vgg16

from vpr_dhe.errors import ModelError
from vpr_dhe.training.registration.perceptual import VggLoss, feature_difference, gradient_dissimilarity, masked_mean

ALL = torch.ones(2, 32, 32, dtype=torch.bool)


def images(seed=0):
    coarse = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)


def test_gradients_agree_in_a_negative_and_not_in_another_image():
    image = images()
    assert gradient_dissimilarity(image, image, ALL).item() == pytest.approx(0, abs=1e-5)
    assert gradient_dissimilarity(image, 1 - image, ALL).item() == pytest.approx(0, abs=1e-5)
    shifted = gradient_dissimilarity(image, image.roll(6, dims=3), ALL)
    other = gradient_dissimilarity(image, images(1), ALL)
    assert 0.2 < shifted <= 1
    assert 0.2 < other <= 1


def test_flat_images_have_finite_gradients():
    image = torch.full((2, 3, 32, 32), 0.5, requires_grad=True)
    gradient_dissimilarity(image, images(), ALL).backward()
    assert torch.isfinite(image.grad).all()


def test_only_cells_that_are_shown_whole_count():
    values = torch.arange(16.0).view(1, 4, 4)
    shown = torch.zeros(1, 8, 8, dtype=torch.bool)
    shown[0, :4, :5] = True
    assert masked_mean(values, shown).item() == pytest.approx((0 + 1 + 4 + 5) / 4)
    assert masked_mean(values, torch.zeros_like(shown)).item() == 0


def test_features_are_compared_by_direction():
    maps = [torch.rand(2, 8, 16, 16) + 0.1, torch.rand(2, 4, 32, 32) + 0.1]
    assert feature_difference(maps, [2 * one for one in maps], ALL).item() == pytest.approx(0, abs=1e-5)
    assert feature_difference(maps, [-one for one in maps], ALL).item() == pytest.approx(2, abs=1e-5)


@pytest.mark.slow
def test_vgg_is_read_from_a_file_and_sees_likeness(tmp_path):
    torch.manual_seed(0)
    torch.save(vgg16(weights=None).state_dict(), tmp_path / "vgg16.pth")
    loss = VggLoss(tmp_path / "vgg16.pth")
    image = images().requires_grad_()
    assert loss(image, image.detach(), ALL).item() == pytest.approx(0, abs=1e-5)
    other = loss(image, images(1), ALL)
    other.backward()
    assert other > 0
    assert image.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_other_files_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    for name in ("other.pth", "nothing.pth"):
        with pytest.raises(ModelError, match=r"holds no weights of torchvision's vgg16.*give the file"):
            VggLoss(tmp_path / name)
