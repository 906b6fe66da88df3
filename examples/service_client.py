"""Client of a running service that localizes a photo, using only the standard library.

    vpr-dhe serve my-index
    python examples/service_client.py where-is-this.jpg
    VPR_DHE_TOKEN=SECRET python examples/service_client.py new.jpg --add --latitude 49.23 --longitude 7.00

The last line adds a photo instead; the service must be started with the same token.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen


def post(address: str, photo: Path, token: str | None = None) -> dict[str, Any]:
    """Send a photo as the body of a request, and return the JSON of the response."""
    headers = {"Content-Type": "application/octet-stream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    with urlopen(Request(address, photo.read_bytes(), headers), timeout=60) as response:
        return json.load(response)


def main() -> None:
    """Localize a photo, or add it to the index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--service", default="http://127.0.0.1:8000", help="[http://127.0.0.1:8000]")
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("--add", action="store_true", help="add the photo to the index instead")
    parser.add_argument("--latitude", type=float)
    parser.add_argument("--longitude", type=float)
    arguments = parser.parse_args()

    options = {"name": arguments.photo.name, "latitude": arguments.latitude, "longitude": arguments.longitude}
    try:
        if arguments.add:
            query = urlencode({name: value for name, value in options.items() if value is not None})
            added = post(f"{arguments.service}/v1/images?{query}", arguments.photo, os.environ.get("VPR_DHE_TOKEN"))
            print(json.dumps(added))
            return
        query = urlencode({"name": arguments.photo.name, "top_k": arguments.top_k})
        answer = post(f"{arguments.service}/v1/localize?{query}", arguments.photo)
    except HTTPError as refusal:
        sys.exit(f"{refusal.code}: {json.load(refusal)['error']}")
    except URLError as failure:
        sys.exit(f"no service at {arguments.service}: {failure.reason}")
    for match in answer["matches"]:
        print(f"{match['rank']}. {match['image']}: {match['inliers']} inliers, position {match['position']}")


if __name__ == "__main__":
    main()
