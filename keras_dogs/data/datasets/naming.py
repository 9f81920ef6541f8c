"""Names of classes as people see them. This file is copied unchanged into exported models."""


def display_name(class_name: str) -> str:
    """Returns a breed of Stanford Dogs in words: `n02109525-Saint_Bernard` -> `Saint Bernard`.

    Any other name stays as it is: a user's folder names are the user's.
    """
    wnid, dash, breed = str(class_name).partition("-")
    is_of_imagenet = bool(dash and breed and len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit())
    words = breed.replace("_", " ").strip()
    return words[:1].upper() + words[1:] if is_of_imagenet else str(class_name)
