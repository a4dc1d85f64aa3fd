"""The whole site as one file, to be read where there is no network: unpack it and open `index.html`."""

from __future__ import annotations

import zipfile
from pathlib import Path

from course_config import Course

DATE = (2000, 1, 1, 0, 0, 0)  # equal sites give equal bytes


def archive_name(course: Course) -> str:
    return f"{course.repository.rpartition('/')[2]}.zip"


def write_archive(course: Course) -> Path:
    """Pack the built site into a file that lies in the site."""
    site, name = course.site_folder, archive_name(course)
    with zipfile.ZipFile(site / name, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(site.rglob("*")):
            if path.is_file() and path.name not in (name, ".buildinfo"):
                entry = zipfile.ZipInfo(f"{Path(name).stem}/{path.relative_to(site).as_posix()}", DATE)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                packed.writestr(entry, path.read_bytes())
    return site / name
