"""Removes labs: processes, mounts, loop devices, namespaces, folders. Works on what a killed run left behind too."""

import os
from pathlib import Path

from . import model, net, proc
from .base import STATE_ROOT, LabError, Progress, run
from .faults import storage


def down(lab, progress=None):
    progress = progress or Progress()
    # What waits for a frozen file system cannot be killed.
    storage.unfreeze(lab)
    proc.kill_all(lambda: proc.of_lab(lab), f"lab {lab.name}")
    unmount(lab)
    net.remove(lab)
    lab.forget()
    progress.say(f"lab {lab.name} is gone")


def down_name(name, progress=None):
    """Removes the lab of that name, even if its record cannot be read."""
    try:
        lab = model.load(name)
    except LabError:
        if not (STATE_ROOT / model.check_name(name)).is_dir():
            raise
        lab = model.Lab(name, 0, {"members": model.MAX_MEMBERS, "net": "namespaces"})
    down(lab, progress)


def down_all(progress=None):
    """Removes every lab under the state folder, and the folder. One that fails does not keep the others."""
    progress = progress or Progress()
    failures = []
    for name in model.names():
        try:
            down_name(name, progress)
        except (LabError, OSError) as error:
            failures.append(f"{name}: {error}")
    if failures:
        raise LabError("not removed: " + "; ".join(failures))
    if STATE_ROOT.is_dir():
        (STATE_ROOT / ".lock").unlink(missing_ok=True)
        try:
            STATE_ROOT.rmdir()
        except OSError:
            pass  # a lab that starts at this moment, or files that are not ours


def unmount(lab):
    for mount_point in reversed(mounts_below(lab.dir)):
        status, _, _ = run(["umount", mount_point], check=False)
        if status != 0:
            run(["umount", "--lazy", mount_point])
    for device in loop_devices_below(lab.dir):
        run(["losetup", "--detach", device], check=False)


def mounts_below(folder):
    """Mount points under a folder, in the order of mounting."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].replace("\\040", " ") for line in lines]
    return [point for point in points if (point + "/").startswith(f"{folder}/")]


def loop_devices_below(folder):
    """Loop devices whose file is, or was, under a folder."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text().strip()
        except OSError:
            continue
        if backing.startswith(f"{os.fspath(folder)}/"):
            found.append(f"/dev/{entry.parent.parent.name}")
    return found
