"""The maths, against diffusers' own scheduler, and what learns from what in distillation."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, LatentConsistencyModelImg2ImgPipeline

from models.training.networks import noise as diffusion
from models.training.networks.architecture import GUIDANCE_WIDTH, build_scheduler
from models.training.networks.tokenizer import tokenize
from models.training.stages.distillation import (
    LATE,
    Asked,
    Consistency,
    Endings,
    Guidance,
    Lesson,
    consistency,
    guided_denoised,
)  # fmt: skip
from models.training.stages.latent_dataset import Sample
from models.training.stages.student import student_from_teacher
from models.training.stages.teacher import Teacher

CPU = torch.device("cpu")


def test_powers_are_the_schedulers() -> None:
    """Our schedule is the shipped scheduler's."""
    torch.testing.assert_close(
        diffusion.alphas_cumprod(CPU), build_scheduler().alphas_cumprod, rtol=1e-4, atol=1e-6
    )


def test_velocity_inverts_denoised() -> None:
    """V leads from x_t to the picture, also where another picture lies under the noise."""
    powers, t = diffusion.alphas_cumprod(CPU), torch.tensor([3, 500, 999])
    latents, noise = torch.randn(2, 3, 4, 8, 8).unbind()
    x_t = diffusion.noised(latents.roll(1, 0), noise, powers, t)
    v = diffusion.velocity(x_t, latents, powers, t)
    torch.testing.assert_close(diffusion.denoised(x_t, v, powers, t), latents, rtol=1e-3, atol=1e-4)


def test_doodles_lie_under_much_noise_and_other_rows_under_the_most() -> None:
    """Under little noise the picture itself; then doodles, up to half; at the end another row's."""
    latents = torch.arange(4000.0).view(-1, 1, 1, 1)
    shares = ((100, 0, 0), (550, 0.5, 0), (930, 0.5, 0.5), (999, 0.5, 0.8))
    for t, doodle_share, other_share in shares:
        for posed in (True, False):
            rows, steps = torch.full((4000,), posed), torch.full((4000,), t)
            seen = diffusion.shown(latents, -latents, rows, steps).flatten()
            assert (seen < 0).float().mean().item() == pytest.approx(doodle_share, abs=0.05)
            away = (seen.abs() != latents.flatten()).float().mean().item()
            assert away == pytest.approx(other_share * posed, abs=0.05)


def test_a_vague_picture_lies_under_some_rows_of_the_middle() -> None:
    """It has the means of large squares and no details; none under little noise, then up to 0.3."""
    torch.manual_seed(0)
    pictures = torch.randn(1000, 4, 16, 16)
    blot = diffusion.vague(pictures)
    torch.testing.assert_close(blot.mean((2, 3)), pictures.mean((2, 3)), atol=0.1, rtol=0)
    assert blot.std() < pictures.std() / 3
    assert diffusion.vague(torch.randn(1, 4, 64, 128)).shape == (1, 4, 64, 128)
    for t, share in ((399, 0), (500, 0.25), (760, 0.3)):
        loose = torch.zeros(1000, dtype=torch.bool)
        seen = diffusion.shown(pictures, pictures, loose, torch.full((1000,), t))
        changed = (seen != pictures).flatten(1).any(1).float().mean().item()
        assert changed == pytest.approx(share, abs=0.05)


def test_a_warped_picture_has_its_colours_at_other_places_nearby() -> None:
    """Every point shows what stood a few latents away, near ones the same way; some rows none."""
    torch.manual_seed(0)
    ramps = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(128.0), indexing="ij"))
    warped = diffusion.warped(ramps.repeat(16, 2, 1, 1))
    assert warped.shape == (16, 4, 64, 128)
    moves = (warped[:, :2] - ramps)[:, :, 16:-16, 16:-16]
    assert 0.5 < moves.std() < diffusion.WARP
    assert moves.diff(dim=3).abs().mean() < moves.abs().mean() / 2
    strengths = moves.flatten(1).std(1)
    assert strengths.min() < strengths.max() / 4


def test_boundary_and_step_are_the_schedulers() -> None:
    """The last LCM step of diffusers is c_skip * x + c_out * x_0 of ours."""
    scheduler, powers = build_scheduler(), diffusion.alphas_cumprod(CPU)
    scheduler.set_timesteps(1)
    t = scheduler.timesteps
    x_t, v = torch.randn(2, 1, 4, 8, 8).unbind()
    theirs = scheduler.step(v, t[0], x_t, return_dict=False)[1]
    skip, out = diffusion.boundary(t)
    ours = skip * x_t + out * diffusion.denoised(x_t, v, powers, t)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_grid_is_drawn_whole_and_up_to_its_latest() -> None:
    """Every timestep of the distilled grid comes, the last oftener, and none after `latest`."""
    torch.manual_seed(0)
    for latest, many in ((999, 50), (899, 45), (299, 15)):
        steps = diffusion.draw_grid(torch.full((20_000,), latest))
        drawn, counts = torch.unique(steps, return_counts=True)
        assert drawn.tolist() == list(range(19, latest + 1, 20))
        assert len(drawn) == many
        assert counts[-1] == counts.max()


def test_guidance_embedding_is_the_pipelines() -> None:
    """W is embedded as the img2img pipeline embeds it."""
    w = torch.tensor([-0.5, 0.0, 7.0, 19.0])
    theirs = LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding(None, w, 256)
    torch.testing.assert_close(diffusion.guidance_embedding(w, 256), theirs)


@pytest.mark.parametrize("w", [-0.5, 0.0, 8.0, 19.0])
def test_guidance_never_leaves_the_latents_range(w: float) -> None:
    """However strong the guidance, x_0 stays in bounds; w = 0 leaves it as it was."""
    with_text, without = torch.randn(2, 2, 4, 8, 8).mul(0.9).unbind()
    guided = guided_denoised(with_text, without, torch.full((2,), w))
    assert guided.abs().max() <= 3.2
    if w == 0:
        torch.testing.assert_close(guided, with_text.clamp(-3.2, 3.2))


def test_ddim_reaches_the_picture_below_zero() -> None:
    """A step below t = 0 is x_0 itself, and a step to the same t changes nothing."""
    powers, t = diffusion.alphas_cumprod(CPU), torch.tensor([19, 519])
    x_t, x_0 = torch.randn(2, 2, 4, 8, 8).unbind()
    stepped = diffusion.ddim_step(x_t, x_0, powers, t, torch.tensor([-1, 519]))
    torch.testing.assert_close(stepped[0], x_0[0])
    torch.testing.assert_close(stepped[1], x_t[1], rtol=1e-4, atol=1e-4)


def _sample(size: int = 8, *, for_trunk: bool = False) -> Sample:
    tokens = torch.tensor(tokenize(["a red heart", "a blue boat"]))
    latents, doodles = torch.randn(2, 2, 4, size, size).mul(0.5).unbind()
    things, posed = torch.rand(2, 1, size, size), torch.tensor([True, True])
    return Sample(latents, doodles, tokens, things, posed, for_trunk)


def _lesson(kind: type[Lesson], *, std: float = 0.0) -> Lesson:
    """Return a lesson of a teacher at its beginning, whose trunk is heard if `std` is above 0."""
    torch.manual_seed(0)
    teacher = Teacher()
    torch.nn.init.normal_(teacher.trunk.exit.weight, std=std)
    student, guide = (student_from_teacher(teacher).eval() for _ in range(2))
    if issubclass(kind, Endings):
        return kind(teacher, student, guide)
    return kind(teacher, student)


@pytest.mark.parametrize("kind", [Guidance, Endings, Consistency])
def test_only_the_student_learns(kind: type[Lesson]) -> None:
    """A lesson's gradient reaches the student, and neither teacher nor target nor guide."""
    lesson = _lesson(kind)
    lesson(_sample()).backward()
    learning = {name.split(".")[0] for name, p in lesson.named_parameters() if p.grad is not None}
    assert learning == {"student"}
    moved = [p.grad is not None and p.grad.abs().sum() > 0 for p in lesson.student.parameters()]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("w", [0.0, 8.0])
def test_a_student_is_first_told_what_guidance_does(
    monkeypatch: pytest.MonkeyPatch, w: float
) -> None:
    """It begins as the unguided teacher: at w = 0 there is nothing to learn, at 8 there is."""
    monkeypatch.setattr("models.training.stages.distillation.MIN_W", w)
    monkeypatch.setattr("models.training.stages.distillation.MAX_W", w)
    loss = _lesson(Guidance)(_sample())
    assert loss < 0.02 if w == 0 else loss > 0.05


@pytest.mark.parametrize("kind", [Guidance, Endings, Consistency])
def test_small_pictures_teach_a_student_s_inner_levels_and_leave_the_doors_alone(
    kind: type[Lesson],
) -> None:
    """Through the trunk the same levels learn as of the teacher; the trunk itself stays."""
    lesson = _lesson(kind, std=0.01)
    lesson(_sample(16, for_trunk=True)).backward()
    assert all(p.grad is None for p in lesson.teacher.parameters())
    learning = {name for name, p in lesson.student.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in learning} == {
        "time_embedding", "add_embedding", "down_blocks", "mid_block", "up_blocks",
    }  # fmt: skip
    assert not any(name.startswith(("down_blocks.0", "up_blocks.3")) for name in learning)


def test_an_ending_is_where_ddim_leads() -> None:
    """Rows that stand at different timesteps end where each would by diffusers' own DDIM."""
    lesson = _lesson(Endings)
    assert isinstance(lesson, Endings)
    sample = _sample()
    text = lesson.teacher.read(sample.tokens)
    x_t, w = torch.randn(2, 4, 8, 8), torch.tensor([0.0, 6.0])
    timesteps = torch.tensor([299, 499])
    with torch.no_grad():
        ends = lesson.end(Asked(x_t, timesteps, text, w), None)
        for row, t in enumerate(timesteps.tolist()):
            one = slice(row, row + 1)
            embedding = diffusion.guidance_embedding(w[one], GUIDANCE_WIDTH)
            scheduler = DDIMScheduler.from_config(build_scheduler().config, clip_sample=False)
            x = x_t[one]
            for at in range(t, 0, -100):
                # diffusers tells how far a step goes by the number of them
                scheduler.set_timesteps(10)
                v = lesson.guide(x, torch.tensor(at), text[one], timestep_cond=embedding).sample
                x = scheduler.step(v, at, x).prev_sample
            torch.testing.assert_close(ends[one], x, rtol=1e-3, atol=1e-2)


def test_a_consistent_student_says_what_it_would_a_step_nearer() -> None:
    """The goal is the target's word at t - 20, where one step of diffusers' own DDIM leads."""
    lesson = _lesson(Consistency)
    assert isinstance(lesson, Consistency)
    torch.nn.init.normal_(lesson.target.conv_out.weight, std=0.1)  # another net than its guide
    text = lesson.teacher.read(_sample().tokens)
    x_t, w, t = torch.randn(2, 4, 8, 8), torch.tensor([0.0, 6.0]), torch.tensor([519, 519])
    scheduler = DDIMScheduler.from_config(build_scheduler().config, clip_sample=False)
    scheduler.set_timesteps(50)
    embedding = diffusion.guidance_embedding(w, GUIDANCE_WIDTH)
    with torch.no_grad():
        v = lesson.guide(x_t, t, text, timestep_cond=embedding).sample
        there = Asked(scheduler.step(v, 519, x_t).prev_sample, t - 20, text, w)
        wanted = consistency(lesson.target, there, lesson.powers)
        nearer = lesson.nearer(Asked(x_t, t, text, w), None)
    torch.testing.assert_close(nearer, wanted, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("share", "method"), [(0.0, "nearer"), (1.0, "end")])
def test_endings_hold_a_consistent_student(
    monkeypatch: pytest.MonkeyPatch, share: float, method: str
) -> None:
    """So many rows above LATE learn where the trajectory ends, the others consistency."""
    monkeypatch.setattr("models.training.stages.distillation.HELD_SHARE", share)
    lesson = _lesson(Consistency)
    torch.nn.init.normal_(lesson.target.conv_out.weight, std=0.1)
    text = lesson.teacher.read(_sample().tokens)
    asked = Asked(torch.randn(2, 4, 8, 8), torch.tensor([519, 999]), text, torch.zeros(2))
    with torch.no_grad():
        goal = lesson.goal(asked, _sample())
        torch.testing.assert_close(goal, getattr(lesson, method)(asked, None))


def test_late_rows_end_in_the_true_picture() -> None:
    """Up to LATE the goal is what was painted, whatever lies under the noise; above it is not."""
    lesson = _lesson(Endings)
    sample = _sample()
    text = lesson.teacher.read(sample.tokens)
    asked = Asked(torch.randn(2, 4, 8, 8), torch.tensor([LATE, LATE + 100]), text, torch.zeros(2))
    goal = lesson.goal(asked, sample)
    assert torch.equal(goal[0], sample.latents[0])
    assert not torch.allclose(goal[1], sample.latents[1], atol=0.1)


def test_a_late_row_may_lie_over_the_student_s_own_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under its noise is then made of the doodle, and never of the true picture."""
    lesson = _lesson(Endings)
    monkeypatch.setattr("models.training.stages.distillation.OWN_SHARE", 1.0)
    late = torch.full((2,), 19)
    monkeypatch.setattr("models.training.networks.noise.draw_grid", lambda _: late)
    hidden = _sample()._replace(latents=torch.full((2, 4, 8, 8), 50.0))
    assert lesson.ask(hidden).x_t.abs().max() < 20
    monkeypatch.setattr("models.training.stages.distillation.OWN_SHARE", 0.0)
    assert lesson.ask(hidden).x_t.min() > 40


def test_the_student_begins_as_the_teacher() -> None:
    """Before distillation the guidance has no say: student and teacher agree at every w."""
    torch.manual_seed(0)
    teacher = Teacher().eval()
    student = student_from_teacher(teacher).eval()
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([999, 19])
    text = teacher.read(torch.tensor(tokenize(["a", "b"])))
    embedding = diffusion.guidance_embedding(torch.tensor([0.0, 19.0]), 256)
    with torch.no_grad():
        ours = student(x, t, text, timestep_cond=embedding).sample
        theirs = teacher.unet(x, t, text).sample
    torch.testing.assert_close(ours, theirs)
