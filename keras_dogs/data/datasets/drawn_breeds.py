"""Breeds of drawn dogs as a table of traits: one row a breed, names coined here.

Chosen once by a greedy search: every two breeds differ in at least three of the eight traits, every value of every
trait is about equally frequent in both halves, and each half is a problem of its own (no breed is in both).
"""

from typing import NamedTuple


class Breed(NamedTuple):
    """A drawn breed. Every field but the name is one of the values that `drawn_dogs` knows how to draw."""

    name: str
    ears: str
    muzzle: str
    body: str
    legs: str
    tail: str
    colour: str
    pattern: str
    coat: str


TRAITS = {
    "ears": ("erect", "drop", "button"),
    "muzzle": ("long", "short"),
    "body": ("long", "compact"),
    "legs": ("tall", "short"),
    "tail": ("curl", "sabre", "plume", "docked"),
    "colour": ("black", "tan", "cream", "grey", "brown"),
    "pattern": ("solid", "saddle", "patches", "spots", "mask"),
    "coat": ("smooth", "shaggy"),
}

# The half that the nano presets are made on (`scripts/train_nano_presets.py`).
PRETRAINING_BREEDS = (
    Breed("alderhound", "erect", "short", "long", "tall", "docked", "grey", "solid", "smooth"),
    Breed("barrowpoint", "drop", "long", "compact", "short", "curl", "cream", "saddle", "shaggy"),
    Breed("brackenjack", "button", "long", "long", "short", "sabre", "brown", "patches", "shaggy"),
    Breed("cinderspitz", "button", "short", "compact", "tall", "plume", "tan", "mask", "smooth"),
    Breed("copperdell", "drop", "long", "long", "tall", "curl", "black", "spots", "smooth"),
    Breed("drovewater", "erect", "short", "compact", "short", "plume", "grey", "solid", "shaggy"),
    Breed("emberfell", "drop", "short", "compact", "short", "docked", "brown", "spots", "smooth"),
    Breed("fernmastiff", "button", "long", "long", "tall", "sabre", "tan", "saddle", "shaggy"),
    Breed("gallowtyke", "erect", "short", "long", "tall", "curl", "black", "patches", "shaggy"),
    Breed("hazelcourser", "button", "short", "compact", "short", "docked", "cream", "mask", "smooth"),
    Breed("inglebeck", "drop", "long", "long", "tall", "plume", "cream", "mask", "shaggy"),
    Breed("jessopterrier", "erect", "long", "compact", "short", "sabre", "brown", "saddle", "smooth"),
    Breed("kestrelhound", "drop", "long", "compact", "short", "docked", "tan", "patches", "shaggy"),
    Breed("larkwhippet", "button", "short", "long", "tall", "sabre", "black", "solid", "smooth"),
    Breed("mosswarden", "erect", "long", "compact", "short", "curl", "grey", "spots", "shaggy"),
    Breed("nettlebrach", "erect", "short", "long", "tall", "plume", "tan", "spots", "smooth"),
    Breed("oatfield", "drop", "long", "compact", "short", "curl", "brown", "solid", "smooth"),
    Breed("pinemarten", "button", "short", "long", "tall", "plume", "black", "saddle", "shaggy"),
    Breed("quarrydog", "erect", "short", "compact", "short", "docked", "grey", "patches", "smooth"),
    Breed("russetpike", "drop", "long", "compact", "tall", "sabre", "cream", "mask", "smooth"),
    Breed("saltmarsh", "button", "long", "long", "tall", "plume", "brown", "spots", "shaggy"),
    Breed("thistlecorgi", "button", "short", "long", "short", "sabre", "black", "mask", "shaggy"),
    Breed("umberlaika", "drop", "short", "long", "tall", "curl", "cream", "saddle", "shaggy"),
    Breed("wolds", "button", "long", "compact", "tall", "docked", "tan", "solid", "smooth"),
)

# The half that `--dataset drawn_dogs` asks for: the presets have seen none of these.
BREEDS = (
    Breed("amberwick", "button", "short", "long", "short", "curl", "tan", "spots", "smooth"),
    Breed("birchhound", "erect", "long", "compact", "tall", "sabre", "black", "mask", "shaggy"),
    Breed("cloverjack", "drop", "short", "compact", "tall", "docked", "cream", "patches", "shaggy"),
    Breed("dunespitz", "erect", "long", "long", "short", "plume", "grey", "solid", "smooth"),
    Breed("elmcourser", "drop", "short", "compact", "tall", "plume", "brown", "saddle", "shaggy"),
    Breed("flintmastiff", "button", "long", "long", "short", "curl", "cream", "solid", "smooth"),
    Breed("gorseterrier", "erect", "long", "long", "tall", "docked", "brown", "spots", "smooth"),
    Breed("heatherbeck", "drop", "short", "long", "short", "sabre", "tan", "patches", "shaggy"),
    Breed("ivybrach", "button", "long", "compact", "short", "sabre", "grey", "mask", "shaggy"),
    Breed("junipertyke", "drop", "short", "compact", "tall", "docked", "black", "saddle", "smooth"),
    Breed("kelpwarden", "erect", "short", "compact", "short", "curl", "cream", "patches", "shaggy"),
    Breed("lindenpoint", "button", "long", "compact", "tall", "plume", "black", "spots", "smooth"),
    Breed("marlhound", "drop", "short", "long", "tall", "docked", "grey", "mask", "shaggy"),
    Breed("nightjar", "erect", "short", "long", "short", "sabre", "brown", "solid", "smooth"),
    Breed("orchardcorgi", "erect", "long", "long", "short", "plume", "tan", "saddle", "shaggy"),
    Breed("peatlaika", "button", "long", "compact", "tall", "curl", "brown", "saddle", "smooth"),
    Breed("quillwhippet", "button", "short", "long", "tall", "sabre", "grey", "patches", "shaggy"),
    Breed("rowandell", "drop", "long", "long", "short", "plume", "tan", "spots", "smooth"),
    Breed("sorrelspitz", "erect", "long", "compact", "short", "docked", "cream", "solid", "shaggy"),
    Breed("tarnwater", "button", "short", "long", "tall", "curl", "cream", "mask", "smooth"),
    Breed("upland", "drop", "short", "compact", "short", "plume", "black", "patches", "smooth"),
    Breed("vetchhound", "button", "long", "compact", "tall", "sabre", "brown", "solid", "shaggy"),
    Breed("willowpike", "drop", "short", "long", "short", "curl", "black", "mask", "smooth"),
    Breed("yarrowjack", "erect", "long", "long", "tall", "docked", "grey", "saddle", "shaggy"),
)
