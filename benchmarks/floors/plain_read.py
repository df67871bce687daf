"""The download alone, or with decompression: replaces curl and gunzip where they are missing.

It takes one JSON argument: `url`, `login` (the Authorization header) and `unpack`.
"""

import json
import sys
import zlib
from urllib.request import Request, urlopen

if __name__ == "__main__":
    argument = json.loads(sys.argv[1])
    headers = {"Accept-Encoding": "gzip", "Authorization": argument["login"]}
    with urlopen(Request(argument["url"], headers=headers)) as answer:
        unzip = zlib.decompressobj(31)
        while chunk := answer.read(1 << 20):
            if argument["unpack"]:
                unzip.decompress(chunk)
