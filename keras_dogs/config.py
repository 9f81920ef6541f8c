"""What the commands can be told: a frozen dataclass a command; the field is the flag, the text under it the help."""

import dataclasses
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from keras_dogs import ownership
from keras_dogs import pairs
from keras_dogs import recipes
from keras_dogs.errors import UserError
from keras_dogs.records import BACKENDS

Augmentation = Literal["none", "light", "standard", "strong", "keras"]
DtypePolicy = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Cache = Literal["auto", "device", "disk", "memory", "none"]
Fit = Literal["squash", "crop", "pad"]
Optimizer = Literal["adamw", "sgd"]
RecipeName = Literal[tuple(recipes.RECIPES)]
HeadStart = Literal["zero", "imagenet"]
PositionResampling = Literal["bicubic", "bicubic_plain", "linear"]
SplitName = Literal["train", "validation", "test"]
BackendName = Literal[BACKENDS]
Budget = Literal["epochs", "time", "flops"]
PairName = Literal[tuple(pairs.PAIRS)]


def _require(holds: bool, flag: str, value, what: str) -> None:
    if not holds:
        raise UserError(f"{flag} {value}: must be {what}")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they become canvases."""

    dataset: str = "drawn_dogs"
    """drawn_dogs (embedded), stanford_dogs (TensorFlow Datasets), or a folder: class/picture, train/ and test/ of them,
    or the official Stanford layout (Images/ and lists/)."""
    data_dir: Path | None = None
    """Where stanford_dogs is kept; if images.tar, annotation.tar and lists.tar lie there, they are used."""
    validation_fraction: float = 0.1
    """Share of each class of the train split that validates; 0 for none. A folder with validation/ keeps its own."""
    canvas_size: int | None = None
    """Side in pixels to which each picture is resized once; default 8/7 of the image size (256 for 224), or the image
    size where nothing is drawn."""
    fit: Fit = "squash"
    """How a picture becomes square: squash the whole, crop the centre, or pad with black."""
    cache: Cache = "auto"
    """Where decoded pictures are kept: disk, for later runs too (`python -m keras_dogs.cache` shows and empties it);
    device, from there in the memory of the accelerator; memory, for this run alone; none, decoded anew each epoch;
    auto: device where they fit, else disk."""
    cache_dir: Path | None = None
    """The folder of that cache; default: KERAS_DOGS_CACHE, or this system's place for such."""
    max_unreadable: float = 0.01
    """Share of pictures that may be unreadable before the run is refused; they are listed and left out."""
    skip_unreadable: bool = False
    """Leave unreadable pictures out however many they are; the record counts them."""

    def __post_init__(self):
        _require(
            0 <= self.validation_fraction < 1,
            "--validation-fraction",
            self.validation_fraction,
            "at least 0 and below 1",
        )
        _require(0 <= self.max_unreadable <= 1, "--max-unreadable", self.max_unreadable, "between 0 and 1")
        _require(self.canvas_size is None or self.canvas_size > 0, "--canvas-size", self.canvas_size, "positive")

    @property
    def unreadable_limit(self) -> float:
        """The share of unreadable pictures above which a run is refused."""
        return 1.0 if self.skip_unreadable else self.max_unreadable


_POSITIVE = (lambda value: value > 0, "positive")
_NOT_NEGATIVE = (lambda value: value >= 0, "at least 0")
_SHARE = (lambda value: 0 <= value <= 1, "between 0 and 1")
_BELOW_1 = (lambda value: 0 <= value < 1, "at least 0 and below 1")
# What the flags of `train` may be.
_RANGES = {
    **dict.fromkeys(("epochs", "batch_size", "accumulate", "learning_rate", "image_size", "views"), _POSITIVE),
    **dict.fromkeys(("checkpoint_every", "keep_checkpoints"), _POSITIVE),
    **dict.fromkeys(("weight_decay", "global_clipnorm", "mixup", "cutmix"), _NOT_NEGATIVE),
    **dict.fromkeys(("unfreeze_every", "patience"), _NOT_NEGATIVE),
    **dict.fromkeys(("warmup_fraction", "erasing"), _SHARE),
    **dict.fromkeys(("dropout", "drop_path", "label_smoothing", "ema"), _BELOW_1),
    **dict.fromkeys(("model_shards", "num_processes", "peer_timeout"), _POSITIVE),
    "process_id": _NOT_NEGATIVE,
    "devices": (lambda value: value == "all" or value > 0, "positive, or all"),
    "layer_decay": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "seed": (lambda value: 0 <= value < 2**31, "between 0 and 2147483647"),
}


# On what a run runs, which may change when it goes on.
_WHERE = ("devices", "model_shards", "coordinator", "num_processes", "process_id", "peer_timeout")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Fine-tune a ViT or ResNet classifier; with no flags, an embedded one on drawn dogs, in about two minutes."""

    preset: str = "resnet_nano"
    """A name (resnet_nano, vit_nano, vit_base_patch16_224_imagenet21k, resnet_50_imagenet, ...), kaggle://..., hf://...,
    a folder of KerasHub, Hugging Face or timm, an .npz of google-research or its address, a .safetensors or .pth file,
    applications:resnet50[:WEIGHTS_FILE], or a run of yours; `python -m keras_dogs.describe` lists the names."""
    data: Annotated[DataConfig, tyro.conf.arg(name="")] = DataConfig()
    output: Path | None = None
    """The run folder; default runs/<dataset>-<preset>-<backend>, numbered if that exists."""
    overwrite: bool = False
    """Replace a finished run in --output."""
    resume: bool = False
    """Go on with the unfinished run in --output, as if it had not been interrupted; other flags are taken from it."""
    recipe: RecipeName | None = None
    """How to fine-tune (keras_dogs/recipes.py): each flag below that is given overrides a field of it; default: adamw,
    or linear_probe with --linear-probe."""
    optimizer: Optimizer | None = None
    """adamw, or sgd with momentum 0.9; default: the recipe's."""
    epochs: int | None = None
    """Passes over the train split; default: the recipe's, or the preset's."""
    batch_size: int | None = None
    """Pictures an update of the weights; default: the recipe's, or the preset's."""
    accumulate: int | None = None
    """Steps into which a batch is split when it does not fit in memory; default: the recipe's."""
    learning_rate: float | Literal["sweep"] | None = None
    """Peak of the schedule (linear warm-up, then cosine to 0), or sweep: a third, once and three times the default,
    the best on validation; default: the recipe's, or the preset's."""
    weight_decay: float | None = None
    """Decoupled decay, not applied to biases, norms, tokens and position embeddings; default: the recipe's."""
    layer_decay: float | None = None
    """What the learning rate is multiplied by from each block to the one below, such as 0.75; default: the recipe's."""
    warmup_fraction: float | None = None
    """Share of all updates in which the learning rate rises; default: the recipe's, mostly 0.1."""
    global_clipnorm: float | None = None
    """Gradients are scaled down to this global norm; 0 for never; default: the recipe's, 1."""
    label_smoothing: float | None = None
    """Share of the target that is spread over all classes, such as 0.1; default: the recipe's."""
    ema: float | None = None
    """Momentum of a running mean of the weights, which is then scored and kept, such as 0.999; default: the recipe's,
    mostly 0 for none."""
    freeze_batch_norm: bool | None = None
    """Keep statistics, scales and offsets of batch norms as they are; default: the recipe's."""
    probe_first: bool | None = None
    """Train the head alone first, on features that are computed once; default: the recipe's."""
    unfreeze_every: float | None = None
    """Epochs after which the next block from the top begins to learn; 0 for all from the start; default: the
    recipe's."""
    patience: int | None = None
    """Epochs without a better validation score after which training stops; 0 for never; default: the recipe's."""
    remat: bool = False
    """Compute each block's activations again for its gradient instead of keeping them (ViTs): less memory, slower."""
    balanced: bool = False
    """Draw training pictures so that each class is as frequent as any other."""
    image_size: int | None = None
    """Side of the square that the backbone sees, in pixels; default: the preset's. A ViT's positions are resampled."""
    position_resampling: PositionResampling | None = None
    """How: bicubic (antialiased), bicubic_plain, or linear as in the ViT paper; default: bicubic, DINOv2's own way."""
    head: HeadStart = "zero"
    """What the head starts from: zero, or the rows of the preset's ImageNet head that stand for the breeds."""
    offline: bool = False
    """Fetch nothing; what is not in a cache is an error."""
    augmentation: Augmentation | None = None
    """The policy, from no draw to RandAugment and mix-up (keras: Keras' own layers, slow); default: standard, light for
    the nano presets, none for a linear probe."""
    mixup: float | None = None
    """Mix-up's Beta parameter, such as 0.2; 0 for none; default: the augmentation's."""
    cutmix: float | None = None
    """Cut-mix's Beta parameter, such as 1.0; 0 for none; default: the augmentation's."""
    erasing: float | None = None
    """Share of pictures with a random box erased, such as 0.25; default: the augmentation's."""
    dropout: float | None = None
    """Dropout before the head; default: the recipe's."""
    drop_path: float | None = None
    """Share of pictures that skip the last block's branches (ViTs only); it rises from 0 with the depth."""
    linear_probe: bool = False
    """Train the head alone; the features are computed once."""
    views: int = 4
    """With a linear probe and an augmentation: how many views of each picture the features are computed of."""
    dtype_policy: DtypePolicy = "float32"
    """Precision of the backbone."""
    devices: int | Literal["all"] | None = None
    """How many GPUs of this host train together, or all; default: one, or with several processes all that each sees
    (docs/scaling.md). On CPUs, a trial that gains nothing."""
    sync_batch_norm: bool = True
    """Batch norms have the statistics of the whole batch, as on one device, not of each device's share."""
    model_shards: int = 1
    """Devices over which each copy of a ViT is divided, for what does not fit (JAX)."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes (JAX; torchrun and TF_CONFIG say it on PyTorch and TensorFlow)."""
    num_processes: int | None = None
    """How many there are."""
    process_id: int | None = None
    """Which of them this one is, from 0."""
    peer_timeout: float = 300.0
    """Seconds to wait for the other processes at the start, and for a sign of life of one later."""
    strict: bool = False
    """Slower, and the same to the last bit when run again: full float32 precision and deterministic kernels."""
    checkpoint_every: int = 500
    """Steps from a checkpoint to the next, beside those after each epoch: what a kill can cost."""
    keep_checkpoints: int = 2
    """How many of the newest are kept until the run is done."""
    tensorboard: bool = False
    """Write events for TensorBoard to the run folder (needs tensorboardX)."""
    wandb: str | None = None
    """A project of Weights & Biases to log to (needs wandb)."""
    seed: int = 0
    """Decides the validation split, the order of the batches, the crops, and random weights."""

    def __post_init__(self):
        for flag, (holds, what) in _RANGES.items():
            value = getattr(self, flag)
            _require(value in (None, "sweep") or holds(value), f"--{flag.replace('_', '-')}", value, what)
        if self.drop_path and recipes.choose(self).linear_probe:
            raise UserError(
                f"--drop-path {self.drop_path}: has no effect with a linear probe, which leaves the blocks alone"
            )
        if self.strict and self.dtype_policy != "float32":
            raise UserError(f"--strict: is for float32, not --dtype-policy {self.dtype_policy}")
        _check_processes(self)
        if self.resume and self.overwrite:
            raise UserError("--resume: goes on with a run, --overwrite begins it again; give one of them")

    def to_plain(self) -> dict:
        """The fields as what JSON can hold."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_plain(cls, values: dict) -> "TrainConfig":
        """The config of what `to_plain` gave; fields that a later version added are passed over."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        data = dict(known["data"])
        for name in ("data_dir", "cache_dir"):
            data[name] = Path(data[name]) if data.get(name) else None
        output = Path(known["output"]) if known["output"] else None
        return cls(**{**known, "data": DataConfig(**data), "output": output})

    def resumed_from(self, values: dict) -> "TrainConfig":
        """The config of an unfinished run, which flags that are given now must not contradict.

        Raises:
            UserError: one does.
        """
        before = TrainConfig.from_plain(values)
        about_where = ("output", "resume", "overwrite", "offline", "data", "cache", "cache_dir", *_WHERE)
        pairs = [(name, self, before, TrainConfig()) for name in TrainConfig.__dataclass_fields__]
        pairs += [(name, self.data, before.data, DataConfig()) for name in DataConfig.__dataclass_fields__]
        for name, now, then, default in pairs:
            told, kept = getattr(now, name), getattr(then, name)
            if name not in about_where and told not in (getattr(default, name), kept):
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"--resume: the run was begun with {flag} {kept}, not {told}; leave {flag} out")
        told = {name: getattr(self.data, name) for name in ("cache", "cache_dir")}
        told = {name: value for name, value in told.items() if value != getattr(DataConfig(), name)}
        data = dataclasses.replace(before.data, **told)
        return dataclasses.replace(
            before,
            data=data,
            output=self.output,
            resume=True,
            overwrite=False,
            offline=self.offline,
            **self.where(),
        )

    def where(self) -> dict:
        """The flags that say on what this process runs."""
        return {name: getattr(self, name) for name in _WHERE}

    def on_another_host(self, own: "TrainConfig") -> "TrainConfig":
        """The config of a training's first process, for another, which was told `own`: its folders are its own."""
        data = dataclasses.replace(self.data, data_dir=own.data.data_dir, cache_dir=own.data.cache_dir)
        return dataclasses.replace(self, data=data, **own.where())


def _check_processes(config: TrainConfig) -> None:
    if not config.coordinator:
        if config.num_processes is not None or config.process_id is not None:
            raise UserError("--num-processes and --process-id: go with --coordinator HOST:PORT")
        return
    host, _, port = config.coordinator.rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator {config.coordinator}: must be HOST:PORT")
    if config.num_processes is None or config.process_id is None:
        raise UserError("--coordinator: needs --num-processes and --process-id, too")
    if config.process_id >= config.num_processes:
        raise UserError(f"--process-id {config.process_id}: must be below --num-processes {config.num_processes}")


def _plain(value):
    """Paths to text, deep."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Score a trained classifier on a split of a dataset; or a preset as it comes, with its own ImageNet head."""

    run: Annotated[str, tyro.conf.Positional]
    """A run folder, a .keras file, or a preset: the rows of its ImageNet head that stand for the breeds, untrained."""
    dataset: str | None = None
    """Another dataset with the same classes; default: the run's own."""
    data_dir: Path | None = None
    """Where stanford_dogs is kept; default: as in training."""
    split: SplitName = "test"
    """Which part of it."""
    batch_size: int = 32
    """Pictures a batch; the scores do not depend on it."""
    max_unreadable: float = 0.01
    """Share of pictures that may be unreadable before the evaluation is refused."""
    skip_unreadable: bool = False
    """Leave unreadable pictures out however many they are."""
    cache_dir: Path | None = None
    """The folder where decoded pictures are kept; default: KERAS_DOGS_CACHE, or this system's place for such."""
    image_size: int | None = None
    """Of a preset: side of the square that the backbone sees, in pixels; default: the preset's."""
    offline: bool = False
    """Fetch nothing; what is not in a cache is an error."""
    saved: bool = False
    """Score the predictions that the run left in predictions.npz, without the model."""
    output: Path | None = None
    """Write a page there: report.md, report.html, figures, scores and predictions."""
    against: tuple[Path, ...] = ()
    """Runs or evaluations (their --output) of the same pictures that the page compares: the preset's own head, a linear
    probe."""
    overlap_list: Path | None = None
    """A list of files that the pretraining used, a name a line: the page splits the score into these and the rest."""
    json: bool = False
    """Print the scores as one JSON object."""

    def __post_init__(self):
        for flag in ("against", "overlap_list"):
            if getattr(self, flag) and not self.output:
                raise UserError(f"--{flag.replace('_', '-')}: is for the page; give --output, too")
        if self.output:
            ownership.check_output(self.output, ownership.EVALUATE)
            if self.output.is_dir() and any(self.output.iterdir()):
                raise UserError(f"--output {self.output}: exists; choose another --output")
        _require(self.batch_size > 0, "--batch-size", self.batch_size, "positive")
        _require(self.image_size is None or self.image_size > 0, "--image-size", self.image_size, "positive")
        _require(0 <= self.max_unreadable <= 1, "--max-unreadable", self.max_unreadable, "between 0 and 1")


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Train presets on backends with seeds, and report which is better, by how much, and at what cost.

    Give a --pair, or --presets; or --from finished runs. Killed and started again, it goes on where it was.
    """

    pair: PairName | None = None
    """embedded (nano presets on drawn dogs: a demonstration), customary (ResNet-50 of ImageNet-1k and ViT-B/16 of
    ImageNet-21k), or same-pretraining (ResNet-50 and DeiT-B, both of ImageNet-1k)."""
    presets: tuple[str, ...] = ()
    """What to train: anything that --preset of train takes."""
    backends: tuple[BackendName, ...] = ()
    """On which backends; default: all that are installed."""
    seeds: tuple[int, ...] = (0,)
    """A run a seed: what the result owes to luck."""
    dataset: str | None = None
    """As for train; default: the pair's, or drawn_dogs."""
    data_dir: Path | None = None
    """As for train."""
    epochs: int | None = None
    """Passes over the train split; default: the pair's, the recipe's, or the preset's."""
    budget: Budget = "epochs"
    """What the presets have the same of: epochs, time, or flops. The first preset has its epochs, the others as many as
    take as long (measured in a run of one epoch each) or as many operations."""
    train_flags: str = ""
    """More flags of train for every run, in one string after =: --train-flags="--linear-probe --canvas-size 224"."""
    from_: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = ()
    """Run folders that were made elsewhere, to compare instead, or beside."""
    output: Path = Path("comparison")
    """Where the runs, the report and results.json go."""
    jobs: int | None = None
    """Runs at a time; default: 1, or one a GPU of --gpus. More than 1 on a CPU spoils the timings."""
    gpus: tuple[str, ...] = ()
    """The GPUs to spread the runs over, by number."""

    def __post_init__(self):
        for seed in self.seeds:
            _require(0 <= seed < 2**31, "--seeds", seed, "between 0 and 2147483647")
        _require(self.jobs is None or self.jobs > 0, "--jobs", self.jobs, "positive")
        if self.gpus and (self.jobs or 1) > len(self.gpus):
            raise UserError(f"--jobs {self.jobs}: more than the {len(self.gpus)} of --gpus")
        _require(self.epochs is None or self.epochs > 0, "--epochs", self.epochs, "positive")
        if self.pair and self.presets:
            raise UserError("--pair and --presets: give one of them")
        if not (self.pair or self.presets or self.from_):
            raise UserError("give --pair, --presets or --from: what is to be compared?")
        for flag, values in (("presets", self.presets), ("backends", self.backends), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise UserError(f"--{flag} {' '.join(map(str, values))}: names one twice")


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Name the breeds in pictures."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a .keras file."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Picture files, folders of them, or quoted globs such as 'dogs/*.jpg'."""
    top_k: int = 5
    """How many breeds a picture, most probable first."""
    batch_size: int = 32
    """Pictures a batch."""
    json: bool = False
    """Print a JSON object a picture, one a line."""

    def __post_init__(self):
        _require(self.top_k > 0, "--top-k", self.top_k, "positive")
        _require(self.batch_size > 0, "--batch-size", self.batch_size, "positive")
        _require(len(self.pictures) > 0, "PICTURES", "none", "at least one")


@dataclasses.dataclass(frozen=True)
class ExplainConfig:
    """Show where a classifier looked: attention rollout of a ViT, Grad-CAM of a ResNet."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a .keras file."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Picture files, folders of them, or quoted globs."""
    output: Path = Path("explanations")
    """The folder for a figure a picture."""

    def __post_init__(self):
        _require(len(self.pictures) > 0, "PICTURES", "none", "at least one")
        ownership.check_output(self.output, ownership.EXPLAIN)


@dataclasses.dataclass(frozen=True)
class DrawConfig:
    """Write drawn dogs as picture files: train/<breed>/ and test/<breed>/."""

    output: Path = Path("drawn_dogs")
    """The folder to write; must not exist, or be empty."""
    train_pictures: int = 60
    """Pictures a breed in train/."""
    test_pictures: int = 25
    """Pictures a breed in test/."""
    seed: int = 0
    """Another seed draws other dogs of the same breeds."""

    def __post_init__(self):
        _require(self.train_pictures > 0, "--train-pictures", self.train_pictures, "positive")
        _require(self.test_pictures > 0, "--test-pictures", self.test_pictures, "positive")


@dataclasses.dataclass(frozen=True)
class DescribeConfig:
    """List the presets that are known by name, or describe one."""

    preset: Annotated[str | None, tyro.conf.Positional] = None
    """A name of the list, or anything that --preset takes; that is loaded to be described."""
    json: bool = False
    """Print JSON: an object a preset, one a line."""


@dataclasses.dataclass(frozen=True)
class CacheConfig:
    """Show what is kept for later runs: decoded pictures, downloaded .npz files, compiled programs."""

    empty: bool = False
    """Remove it."""
    older_than: float = 0.0
    """Only what was not used for so many days."""
    cache_dir: Path | None = None
    """Another folder; default: KERAS_DOGS_CACHE, or this system's place for such."""

    def __post_init__(self):
        _require(self.older_than >= 0, "--older-than", self.older_than, "at least 0")
