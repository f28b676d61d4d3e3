"""A run of `fal-ai/bytedance/seedream/v4/edit`: check the input, take time, draw, host the images, name the price."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import drawing, lifecycle
from .arguments import MAX_IMAGES, Arguments, InvalidInput, read
from .fault_plan import FaultPlan, Injection
from .files import Files
from .inputs import Inputs
from .job import HostedImage, Job, Verdict
from .renderer import RenderedImage, Renderer, RenderJob
from .runner import Run
from .verdicts import MODEL_ERRORS, REQUEST_ERRORS, model_error, refused, request_error


class Seedream:
    """The model's place in the catalogue."""

    def __init__(self, inputs: Inputs, files: Files, renderer: Renderer, faults: FaultPlan) -> None:
        self._inputs = inputs
        self._files = files
        self._renderer = renderer
        self._faults = faults

    async def run(self, run: Run) -> Verdict:
        """One request from input to verdict."""
        started = run.clock()
        injected: list[str] = []
        try:
            verdict = await self._verdict(run, read(run.body, run.options), injected)
        except InvalidInput as error:
            verdict = refused(error.details, seed=run.job.seed)
        if verdict.status == 422 and run.options.charge_422:
            verdict = replace(verdict, units=1)
        return replace(verdict, injected=tuple(injected), inference_time=round(run.clock() - started, 3))

    async def _verdict(self, run: Run, arguments: Arguments, injected: list[str]) -> Verdict:
        fault = self._faults.draw("outcome", run.job.markers)
        kind = fault.kind if fault else ""
        if fault:
            injected.append(kind)
        run.ignores_cancel = kind == "finish_despite_cancel"
        await run.infer()
        if fault and kind == "slow_run":
            await run.pause(fault.value)
        if fault and (spoilt := _spoilt(fault, run.job, arguments)):
            return spoilt
        if kind == "internal_retry":
            run.begin_again()
            await run.infer()
        shape = self._faults.draw("shape", run.job.markers)
        if shape:
            injected.append(shape.kind)
        return await self._make(run, arguments, shape.kind if shape else "")

    async def _make(self, run: Run, arguments: Arguments, shape: str) -> Verdict:
        seed = random_seed(run.job) if arguments.seed is None else arguments.seed
        job_spec = RenderJob(
            owner=run.job.request_id,
            prompt=arguments.prompt,
            seed=seed,
            size=arguments.size,
            size_name=arguments.size_name,
            count=_count(arguments, shape),
            max_side=run.options.max_side,
            encoding=run.options.image_format,
            keep=not arguments.sync_mode,
        )
        made = await self._draw(run, job_spec, arguments.image_urls)
        stored = [self._host(run.job, one) for one in made]
        last = len(stored) - 1
        images = [
            _as_named(image, "wrong_size" if shape == "one_wrong_size" and place == last else shape)
            for place, image in enumerate(stored)
        ]
        return Verdict(200, {"images": images, "seed": seed}, units=len(stored), hosted=tuple(stored), seed=seed)

    async def _draw(self, run: Run, job_spec: RenderJob, urls: tuple[str, ...]) -> list[RenderedImage]:
        if run.options.image_mode == "plain":
            return await self._renderer.flat(job_spec)
        async with self._renderer.places:
            inputs = await self._inputs.fetch(urls, run.job.origin)
            try:
                return await self._renderer.render(job_spec, inputs)
            except drawing.Unreadable as error:
                raise InvalidInput(
                    model_error("image_load_error", urls[error.position], position=error.position)
                ) from error

    def _host(self, job: Job, made: RenderedImage) -> HostedImage:
        """Give an image its URL; in sync_mode the URL is the image (provider-protocol 9.1)."""
        name = made.path.rpartition("_")[0].rpartition("/")[2] + "." + made.path.rpartition(".")[2]
        if made.data:
            url = f"data:{made.content_type};base64,{base64.b64encode(made.data).decode()}"
        else:
            url = self._files.url(job.origin, made.path)
            life = lifecycle.parse(job.lifecycle)
            self._files.register(
                *(made.path, made.content_type, made.size, made.sha256, life),
                request_id=job.request_id,
                markers=job.markers,
            )
        return HostedImage(url, made.sha256, made.content_type, name, made.size, made.width, made.height)


def random_seed(job: Job) -> int:
    """The seed of a request that names none: random, but the same again when the run is repeated."""
    return int.from_bytes(hashlib.sha256(job.request_id.encode()).digest()[:4], "big") >> 1


def _count(arguments: Arguments, shape: str) -> int:
    """How many images come back; between inputs and outputs fifteen is the end (provider-protocol 9.1)."""
    count = max(1, min(arguments.output_count, MAX_IMAGES - len(arguments.image_urls)))
    if shape == "fewer_images":
        return max(1, count - 1)
    return 0 if shape == "no_images" else count


def _as_named(image: HostedImage, shape: str) -> Mapping[str, Any]:
    """The image as the reply names it."""
    if shape == "bare_images":
        return {"url": image.url}
    wider = 8 if shape == "wrong_dimensions" else 0
    return {
        "url": image.url,
        "content_type": image.content_type,
        "file_name": image.file_name,
        "file_size": image.size + (1 if shape == "wrong_size" else 0),
        "width": image.width + wider,
        "height": image.height,
    }


def _spoilt(fault: Injection, job: Job, arguments: Arguments) -> Verdict | None:
    """The verdict of a fault that keeps the model from drawing; None for the others."""
    if fault.kind in MODEL_ERRORS:
        verdict = refused([model_error(fault.kind, arguments.image_urls[0])], seed=job.seed)
        return replace(verdict, status=int(fault.value))
    if fault.kind == "completed_with_error" or (fault.kind == "internal_retry" and job.no_retry):
        return request_error("runner_disconnected")
    return request_error(fault.kind) if fault.kind in REQUEST_ERRORS else None
