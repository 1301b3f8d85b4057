"""Models on a shelf under a governor: those that are open, and the variant of new answers."""

from dataclasses import replace
from pathlib import Path

from tests.device.serving.models.shelves import Openings, entry_of, shelf_of
from tests.device.serving.models.test_shelf import says

from onhand.device.serving.governor.governor import Governor
from onhand.device.serving.governor.readings import Readings
from onhand.device.serving.governor.setting import GovernorSettings
from onhand.device.serving.models.shelved import ShelvedModel


def test_a_shelved_model_gets_another_variant_and_its_own_again(tmp_path: Path) -> None:
    """The bundle's own where it has no variant of that name, and while nothing presses."""
    openings = Openings()
    shelf = shelf_of(openings)
    entry = entry_of(shelf, tmp_path / "a")
    model = ShelvedModel(shelf, entry)
    assert model.governables() == []
    says(shelf, entry)
    assert [one.name for one in model.governables()] == ["a"]

    now = [Readings(at_s=0, temperature_c=99)]

    def read() -> Readings:
        now[0] = replace(now[0], at_s=now[0].at_s + 31)
        return now[0]

    aims = GovernorSettings(variants=("int4", "other"))
    governor = Governor(lambda: [model], aims, read=read, processors=2)

    def tick() -> None:
        governor.tick()
        while shelf.work():
            pass

    seen = []
    while governor.setting.variant_step < 2:
        tick()
        seen.append(entry.place().facts.variant)
    assert seen[-2:] == ["float", "other"]
    assert says(shelf, entry) == "yes"

    now[0] = replace(now[0], temperature_c=40)
    for _ in range(8):
        tick()
    assert entry.place().facts.variant == "float"
    shelf.close()
