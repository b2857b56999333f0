"""Runs the demo: `make demo`, or `.venv/bin/python -m hack.demo` once the cluster and the images are there."""

import argparse
import sys

from hack.demo import expectations, stage, story
from hack.demo.screen import Screen
from hack.lab import errors, journal


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hack.demo",
        description="Rolls four versions of a model out on the local cluster, under live traffic: a good one,"
        " a better one, which is promoted, one that fails on some requests and one that answers them wrongly, which"
        " are rolled back. Ends with what users met, and with exit code 1 when the story did not come true.",
    )
    parser.add_argument("--keep", action="store_true", help="leave the models in place, to look at them")
    return parser.parse_args()


def main() -> int:
    keep = options().keep
    screen = Screen()
    stage.enter_cluster()
    try:
        screen.say("clearing the stage")
        stage.clear(wait=True)
        screen.say("installing Kedge with Helm, training four models of handwritten digits")
        kubectl, folder = stage.set_up()
        told = story.Stage(kubectl, folder, screen).play()
        came_true = tell(screen, told)
        screen.write(kubectl.run("get", "modeldeployment", story.NAME))
        for chapter in (told.bad, told.silent):
            screen.write(f"RolledBack: {journal.condition(chapter.status, 'RolledBack')['message']}")
    except errors.LabError as error:
        screen.say(f"the story broke off: {error}")
        return 1
    if keep:
        screen.say(f"look at it: kubectl -n {stage.NAMESPACE} describe modeldeployment {story.NAME}")
    else:
        stage.clear(wait=False)
    screen.say("the story came true" if came_true else "the story did not come true")
    return 0 if came_true else 1


def tell(screen: Screen, told: story.Story) -> bool:
    """Prints what happened and what came true, and returns whether all did."""
    screen.write("\nWhat happened\n" + expectations.figures(told) + "\n")
    checked = expectations.check(told)
    screen.write("\n".join(f"{'yes' if holds else ' NO'}  {text}" for text, holds in checked) + "\n")
    return all(holds for _, holds in checked)


if __name__ == "__main__":
    sys.exit(main())
