"""The routes of the server: predictions, explanations, the models, the state of the server, and the page."""

import asyncio
import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.responses import JSONResponse
from starlette.responses import PlainTextResponse
from starlette.responses import Response
from starlette.routing import Route

from keras_dogs.errors import UserError
from keras_dogs.serving import metrics
from keras_dogs.serving import protocol
from keras_dogs.serving.batching import Batcher
from keras_dogs.serving.batching import Limits
from keras_dogs.serving.batching import Overloaded
from keras_dogs.serving.config import ServeConfig
from keras_dogs.serving.requests import OneLine
from keras_dogs.serving.served import Served
from keras_dogs.serving.uploads import Reader
from keras_dogs.serving.uploads import Upload

_PAGE = Path(__file__).parent / "page"
_FILES = ("index.html", "page.css", "page.js", "icon.svg")
# Nothing of the page comes from another host, and no other page shows it.
_SAFE = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Service:
    """The models, each behind its queue, and what they share.

    Args:
        config: `ServeConfig`.
        models: list of `Served`.

    Attributes:
        failure: what ended the server, or `None`.
        end: function that ends the server.
    """

    def __init__(self, config: ServeConfig, models: list[Served]):
        self.config, self.models = config, {each.name: each for each in models}
        self.metrics = metrics.Metrics()
        self.reader = Reader(config.max_bytes, config.max_pixels, config.max_batch, config.timeout)
        self.batchers = {each.name: self._batcher(each) for each in models}
        self.failure: Exception | None = None
        self.end = lambda: None  # whoever runs the server gives another

    def _batcher(self, served: Served) -> Batcher:
        config, name = self.config, served.name

        def count(size: int, seconds: float) -> None:
            self.metrics.count_batch(name, size, seconds)

        limits = Limits(config.max_batch, config.max_wait_ms / 1000, config.max_queue, config.timeout)
        return Batcher(served.ask, served.prepare, served.canvas_shape, served.any_batch, limits, count)

    @contextlib.asynccontextmanager
    async def at_work(self, _app=None):
        """Warms the models up and has them work, for the block."""
        parts = [part for each in self.batchers.values() for part in (each.work(), each.warm_up())]
        tasks = [asyncio.create_task(self._watched(part)) for part in parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in (*self.batchers.values(), self.reader):
                each.close()

    async def _watched(self, part) -> None:
        """Ends the server where a part of it fails, as it would answer nothing any more."""
        try:
            await part
        except Exception as error:
            self.failure = error
            self.end()

    @property
    def is_ready(self) -> bool:
        """Whether each model has answered a batch of each size."""
        return all(each.is_ready for each in self.batchers.values())

    def model_of(self, name: str | None) -> Served:
        """Returns a model by its name; the first where none is given.

        Raises:
            HTTPException: 404.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise HTTPException(404, f"no such model; there are: {', '.join(self.models)}")
        return self.models[name]

    async def open_and_ask(self, served: Served, uploads: list[Upload]):
        """Returns the canvas of each picture, or why it cannot be read, and the logits of the canvases.

        Raises:
            HTTPException: 400 or 413 where none can be read.
        """
        opened = await self.reader.open_all(uploads, served.canvas)
        canvases = [each for each in opened if not isinstance(each, str)]
        if not canvases:
            raise _unreadable(uploads, opened)
        return opened, await self.batchers[served.name].logits_of(canvases)

    async def in_time(self, answer):
        """Returns an answer.

        Raises:
            HTTPException: 504 where it does not come in time.
        """
        try:
            return await asyncio.wait_for(answer, self.config.timeout)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.config.timeout:g} s") from None


def build(service: Service):
    """Returns the ASGI application of a service."""
    routes = [
        Route("/predict", _bound(_predict, service), methods=["POST"]),
        Route("/explain", _bound(_explain, service), methods=["POST"]),
        Route("/metadata", _bound(_metadata, service)),
        Route("/metrics", _bound(_metrics, service)),
        Route("/healthz", _bound(_is_alive, service)),
        Route("/readyz", _bound(_is_ready, service)),
        Route("/v2", _bound(_server, service)),
        Route("/v2/health/live", _bound(_is_alive, service)),
        Route("/v2/health/ready", _bound(_is_ready, service)),
        Route("/v2/models/{model}", _bound(_model, service)),
        Route("/v2/models/{model}/ready", _bound(_is_ready, service)),
        Route("/v2/models/{model}/infer", _bound(_infer, service), methods=["POST"]),
        Route("/", _file("index.html")),
        *(Route(f"/{name}", _file(name)) for name in _FILES),
    ]
    handlers = {
        HTTPException: _error,
        Overloaded: _overloaded,
        UserError: _user_error,
        ClientDisconnect: _gone,
        Exception: _fault,
    }
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=service.at_work)
    app.router.redirect_slashes = False
    return OneLine(app, service.metrics)


def _bound(endpoint, service: Service):
    async def route(request: Request) -> Response:
        return await endpoint(service, request)

    return route


def _file(name: str):
    async def route(request: Request) -> Response:
        return FileResponse(_PAGE / name, headers=_SAFE)

    return route


async def _predict(service: Service, request: Request) -> Response:
    query = request.query_params
    served = service.model_of(query.get("model"))
    top_k = _whole(query, "top_k", 5, 1, len(served.class_names))
    answering = served.answering(top_k, _coverage(query))
    answering.check()
    with service.reader.room(request):
        uploads = await service.reader.read_pictures(request)
        with service.batchers[served.name].admit(len(uploads)):
            opened, logits = await service.in_time(service.open_and_ask(served, uploads))
    answers = iter(answering.answers_to(logits))
    predictions = [
        {"name": upload.name, **({"error": each} if isinstance(each, str) else next(answers).to_plain())}
        for upload, each in zip(uploads, opened)
    ]
    return JSONResponse({"model": served.name, "predictions": predictions})


async def _explain(service: Service, request: Request) -> Response:
    served = service.model_of(request.query_params.get("model"))
    if served.explain is None:
        raise HTTPException(404, f"{served.name} has no explanations: it is exported, or its family has no method")
    with service.reader.room(request):
        uploads = (await service.reader.read_pictures(request))[:1]
        with service.batchers[served.name].admit(1):
            found = await service.in_time(_explain_one(service, served, uploads))
    heat = found.heat / max(float(found.heat.max()), 1e-12)
    rows = [[round(float(value), 4) for value in row] for row in heat]
    return JSONResponse(
        {
            "model": served.name,
            "method": found.method,
            "class": found.class_name,
            "heat": rows,
            "fit": served.canvas["fit"],
        }
    )


async def _explain_one(service: Service, served: Served, uploads: list[Upload]):
    (opened,) = await service.reader.open_all(uploads, served.canvas)
    if isinstance(opened, str):
        raise _unreadable(uploads, [opened])
    return await service.batchers[served.name].call_alone(served.explain, opened)


async def _infer(service: Service, request: Request) -> Response:
    served = service.model_of(request.path_params["model"])
    with service.reader.room(request):
        body = await service.reader.read_body(request)
        read = protocol.read_request, body, served, service.config.max_batch
        canvases, asked = await service.reader.in_thread(*read)
        with service.batchers[served.name].admit(len(canvases)):
            logits = await service.in_time(service.batchers[served.name].logits_of(list(canvases)))
    return JSONResponse(protocol.answer(served, logits, asked))


async def _metadata(service: Service, request: Request) -> Response:
    import keras_dogs

    config = service.config
    limits = {"bytes": config.max_bytes, "pixels": config.max_pixels, "pictures": config.max_batch}
    models = [each.to_plain() for each in service.models.values()]
    return JSONResponse({"keras_dogs": keras_dogs.__version__, "limits": limits, "models": models})


async def _metrics(service: Service, request: Request) -> Response:
    in_hand = {name: batcher.in_hand for name, batcher in service.batchers.items()}
    return Response(service.metrics.to_text(in_hand), headers={"content-type": metrics.CONTENT_TYPE})


async def _is_alive(service: Service, request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _is_ready(service: Service, request: Request) -> Response:
    if "model" in request.path_params:
        ready = service.batchers[service.model_of(request.path_params["model"]).name].is_ready
    else:
        ready = service.is_ready
    return PlainTextResponse("ready\n") if ready else PlainTextResponse("the models are warming up\n", 503)


async def _server(service: Service, request: Request) -> Response:
    import keras_dogs

    return JSONResponse({"name": "keras_dogs", "version": keras_dogs.__version__, "extensions": []})


async def _model(service: Service, request: Request) -> Response:
    return JSONResponse(protocol.describe(service.model_of(request.path_params["model"])))


def _whole(query: Mapping, name: str, default: int, least: int, most: int) -> int:
    text = query.get(name, str(default))
    if not (text.isdecimal() and text.isascii() and len(text) < 10 and int(text) >= least):
        raise HTTPException(400, f"{name}: a whole number of {least} or more is needed")
    return min(int(text), most)


def _coverage(query: Mapping) -> float | None:
    if "coverage" not in query:
        return None
    try:
        coverage = float(query["coverage"])
    except ValueError:
        coverage = math.nan
    if not 0.5 <= coverage <= 0.99:
        raise HTTPException(400, "coverage: a number from 0.5 to 0.99 is needed")
    return coverage


def _unreadable(uploads: list[Upload], reasons: list[str]) -> HTTPException:
    """Says why no picture of a request can be read."""
    name = f"{uploads[0].name}: " if uploads[0].name else ""
    status = 413 if all("too large" in reason for reason in reasons) else 400
    return HTTPException(status, f"{name}{reasons[0]}")


async def _error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _user_error(request: Request, error: UserError) -> Response:
    return JSONResponse({"error": str(error).removeprefix("--")}, 400)  # parameters are called as flags are


async def _overloaded(request: Request, error: Overloaded) -> Response:
    headers = {"retry-after": str(error.seconds)}
    return JSONResponse({"error": f"too many requests at once; try again in {error.seconds} s"}, 503, headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # for the log: nobody reads it


async def _fault(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed; its log says how"}, 500)
