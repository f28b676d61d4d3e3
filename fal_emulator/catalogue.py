"""Which applications exist here: the edit model, and just enough of three others for the official client's tests.

A submit to an unknown application is refused with 404; an unknown path in a known one is accepted and ends 404
as the outcome (provider-protocol 5.4).
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from .arguments import InvalidInput, parse_object
from .files import Files
from .job import Verdict
from .lifecycle import Lifecycle
from .plain_images import flat
from .runner import Run
from .seedream import Seedream, random_seed
from .verdicts import not_found, refused

EDIT = "fal-ai/bytedance/seedream/v4/edit"
SDXL = "fal-ai/fast-sdxl"
SIDE = 1024


@dataclass(frozen=True, slots=True)
class Model:
    """One endpoint. `unit_price` in US dollars per image."""

    endpoint_id: str
    title: str
    category: str
    unit_price: float
    run: Callable[[Run], Awaitable[Verdict]]


class Catalogue:
    """The endpoints by id."""

    def __init__(self, seedream: Seedream, files: Files) -> None:
        self._files = files
        models = (
            Model(EDIT, "Seedream 4.0 Edit (stand-in)", "image-to-image", 0.03, seedream.run),
            Model(SDXL, "Fast SDXL (stand-in)", "text-to-image", 0.0, self._one_image),
            Model(f"{SDXL}/image-to-image", "Fast SDXL (stand-in)", "image-to-image", 0.0, self._one_image),
            Model("fal-ai/any-llm", "Any LLM (stand-in)", "llm", 0.0, self._few_words),
        )
        self.models = {model.endpoint_id: model for model in models}
        self._apps = {"/".join(model.endpoint_id.split("/")[:2]) for model in models}

    def chosen(self, endpoint_ids: Sequence[str]) -> list[str]:
        """Those of these endpoints that exist; all of them when none is named."""
        return [one for one in self.models if not endpoint_ids or one in endpoint_ids]

    def has_app(self, app_id: str) -> bool:
        """Whether a submit to this application is accepted at all."""
        return app_id in self._apps

    def price(self, endpoint_id: str) -> float:
        """Dollars per image."""
        model = self.models.get(endpoint_id)
        return model.unit_price if model else 0.0

    async def run(self, run: Run) -> Verdict:
        """Let the right model run."""
        model = self.models.get(run.job.endpoint_id)
        return await model.run(run) if model else not_found()

    async def _one_image(self, run: Run) -> Verdict:
        try:
            given = parse_object(run.body)
        except InvalidInput as error:
            return refused(error.details)
        await run.infer()
        seed = given["seed"] if isinstance(given.get("seed"), int) else random_seed(run.job)
        data = flat(SIDE, SIDE, run.job.request_id)
        path = self._files.path_for(run.job.request_id, "0.png")
        self._files.register(
            path, "image/png", len(data), self._files.write(path, data), Lifecycle(), request_id=run.job.request_id
        )
        url = self._files.url(run.job.origin, path)
        images = [{"url": url, "width": SIDE, "height": SIDE, "content_type": "image/png"}]
        body = {"images": images, "seed": seed, "prompt": given.get("prompt", ""), "has_nsfw_concepts": [False]}
        return Verdict(200, body, seed=seed, inference_time=run.options.latency)

    async def _few_words(self, run: Run) -> Verdict:
        await run.infer()
        return Verdict(200, {"output": WORDS, "partial": False, "error": None})


WORDS = "This is a stand-in; no language model ran."


def spoken_words() -> list[str]:
    """The events of `fal-ai/any-llm/stream`: growing text, the last one not partial."""
    words = WORDS.split()
    return [
        json.dumps({"output": " ".join(words[: n + 1]), "partial": n + 1 < len(words), "error": None})
        for n in range(len(words))
    ]
