"""The download alone, or with its decompression: what curl and gunzip do, where there is no curl.

It takes one JSON argument: `url`, `login` (the Authorization header) and `unpack`.
"""

import json
import sys
import zlib
from urllib.request import Request, urlopen

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    headers = {"Accept-Encoding": "gzip", "Authorization": given["login"]}
    with urlopen(Request(given["url"], headers=headers)) as answer:
        unzip = zlib.decompressobj(31)
        while chunk := answer.read(1 << 20):
            if given["unpack"]:
                unzip.decompress(chunk)
