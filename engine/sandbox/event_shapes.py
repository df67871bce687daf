"""Invent the sandbox's events: kinds of events, a property mapping each.

Pure: it knows no day, no volume and no server. Everything here is invented.
"""

from collections.abc import Callable
from random import Random
from typing import Any

Kind = Callable[[Random], tuple[str, dict[str, Any]]]

TIME, USER, INSERT_ID, RECEIVED, PROCESSED = "<time>", "<user>", "<insert>", "<api>", "<processed>"
"""Placeholders of the values that differ in every event, in the order of their appearance."""

EVENTS = ("Items purchased", "Items sold", "Sign in", "Sign off", "Item Purchased")
ITEMS = ("charger", "chair", "mobile", "Watch", "Pen", "desk lamp", "notebook", "kettle")
TEXTS = (
    "plain words",
    "party \N{PARTY POPPER} \U0001f468\u200d\U0001f469\u200d\U0001f467",  # astral, joined
    "\u5546\u54c1\u3092\u8cfc\u5165\u3057\u307e\u3057\u305f \u6f22\u5b57 \ud55c\uad6d\uc5b4",
    "\u043f\u043b\u043e\u0445\u043e\u0439 \u0445\u043e\u0434",  # D1 85 inside
    "\u00c5ngstr\u00f6m \u0105\u0119",  # C3 85 and C4 85 inside
    "one\u2028two\u2029three\u0085four",  # line breaks to Unicode, not to JSON
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    'cafe\u0301 100% \\ "quoted" \t\u000b\u001c tab',
    "cut \ufffd",
    "",
    "<null>",
    "undefined",
)
CITIES = (("Z\u00fcrich", "Zurich", "CH"), ("S\u00e3o Paulo", "S\u00e3o Paulo", "BR"),
          ("\u5927\u962a", "Osaka", "JP"), ("Austin", "Texas", "US"), ("Pune", "Maharashtra", "IN"),
          ("\u0141\u00f3d\u017a", "\u0141\u00f3d\u017a Voivodeship", "PL"))  # fmt: skip
BROWSERS = ("Chrome", "Safari", "Firefox", "Microsoft Edge", "Mobile Safari", "Samsung Internet")
PHONES = (("Apple", "iPhone15,3"), ("samsung", "SM-S918B"), ("Google", "Pixel 8"))
CAMPAIGNS = ("spring_sale", "newsletter-42", "brand", "retargeting q3", "influencer_a")

TYPED = {
    **{f"typed_string_{n}": "string" for n in range(6)},
    **{f"typed_long_{n}": "long" for n in range(5)},
    **{f"typed_number_{n}": "number" for n in range(4)},
    **{f"typed_boolean_{n}": "boolean" for n in range(4)},
    **{f"typed_datetime_{n}": "date-time" for n in range(3)},
    **{f"typed_date_{n}": "date" for n in range(2)},
    **{f"typed_list_{n}": "array" for n in range(2)},
}
"""The properties that shape "typed" adds to the tutorial's ten, with their XDM types."""


def tutorial(random: Random) -> tuple[str, dict[str, Any]]:
    """An event of the tutorial: eleven fields with the event's name, `$import` on one in four."""
    properties: dict[str, Any] = {
        "time": TIME,
        "distinct_id": USER,
        "$insert_id": INSERT_ID,
        "$mp_api_endpoint": "api.mixpanel.com",
        "$mp_api_timestamp_ms": RECEIVED,
        "item_id": str(random.randrange(29000, 29999)),
        "item_name": random.choice(ITEMS),
        "item_price": f"{random.randrange(1, 9999)}.{random.randrange(100):02}",
        "mp_processing_time_ms": PROCESSED,
    }
    if random.random() < 0.25:
        properties["$import"] = True
    return random.choice(EVENTS), properties


def located(random: Random) -> dict[str, Any]:
    """The properties that Mixpanel and a campaign add to an event of any client."""
    city, region, country = random.choice(CITIES)
    return {
        "$city": city,
        "$region": region,
        "mp_country_code": country,
        "$device_id": f"{random.getrandbits(128):032x}",
        "$user_id": f"user-{random.randrange(10**7)}@shop.example",
        "$mp_event_size": random.randrange(600, 1400),
        "$import": True,
        "utm_source": random.choice(("google", "bing", "partner", "direct")),
        "utm_medium": random.choice(("cpc", "email", "social", "affiliate")),
        "utm_campaign": random.choice(CAMPAIGNS),
        "currency": random.choice(("EUR", "USD", "JPY", "BRL")),
        "quantity": random.randrange(1, 9),
        "logged_in": random.random() < 0.5,
    }


def web(random: Random) -> tuple[str, dict[str, Any]]:
    """An event of a browser: 36 properties, the tutorial's ten among them."""
    page = f"https://shop.example/{random.choice(ITEMS)}/{random.randrange(10**6)}"
    return random.choice(("$mp_web_page_view", "Viewed product", "Items purchased")), {
        **tutorial(random)[1],
        **located(random),
        "$browser": random.choice(BROWSERS),
        "$browser_version": random.randrange(90, 140),
        "$current_url": f"{page}?ref={random.getrandbits(128):032x}&variant=b",
        "$initial_referrer": "https://www.search.example/",
        "$initial_referring_domain": "www.search.example",
        "$lib_version": f"2.{random.randrange(40, 60)}.0",
        "$os": random.choice(("Windows", "Mac OS X", "Linux", "Android", "iOS")),
        "$referrer": f"{page}?from=list&position={random.randrange(50)}",
        "$referring_domain": "shop.example",
        "$screen_height": random.choice((768, 900, 1080, 1440)),
        "$screen_width": random.choice((1366, 1440, 1920, 2560)),
        "$search_engine": random.choice(("google", "bing", None)),
        "mp_lib": "web",
        "page_title": f"{random.choice(ITEMS)} - the example shop, delivered by tomorrow noon",
    }


def mobile(random: Random) -> tuple[str, dict[str, Any]]:
    """An event of a telephone: 36 properties, the tutorial's ten among them."""
    brand, model = random.choice(PHONES)
    return random.choice(("$ae_session", "Viewed product", "Items sold")), {
        **tutorial(random)[1],
        **located(random),
        "$ae_session_length": round(random.uniform(1, 900), 1),
        "$app_build_number": str(random.randrange(1000, 2000)),
        "$app_version_string": f"5.{random.randrange(30)}.{random.randrange(10)}",
        "$bluetooth_enabled": random.random() < 0.5,
        "$carrier": random.choice(("Swisscom", "Vodafone", "T-Mobile", "NTT DOCOMO")),
        "$lib_version": f"4.{random.randrange(10)}.{random.randrange(10)}",
        "$manufacturer": brand,
        "$model": model,
        "$os": "iOS" if brand == "Apple" else "Android",
        "$os_version": f"{random.randrange(12, 19)}.{random.randrange(8)}",
        "$radio": random.choice(("LTE", "NR", "none")),
        "$wifi": random.random() < 0.7,
        "mp_lib": "swift" if brand == "Apple" else "android",
        "screen": f"/shop/{random.choice(ITEMS)}/detail/{random.getrandbits(256):064x}",
    }


def typed(random: Random) -> tuple[str, dict[str, Any]]:
    """The tutorial's ten properties and `TYPED`: 36 together."""
    values: dict[str, Callable[[], Any]] = {
        "string": lambda: f"{random.choice(TEXTS[:5])} {random.getrandbits(48):012x}",
        "long": lambda: random.randrange(10**12),
        "number": lambda: round(random.uniform(0, 10000), 2),
        "boolean": lambda: random.random() < 0.5,
        "date": lambda: f"2024-{random.randrange(1, 13):02}-{random.randrange(1, 29):02}",
        "date-time": lambda: (
            f"2024-05-{random.randrange(1, 29):02}T13:30:{random.randrange(60):02}Z"
        ),
        "array": lambda: [random.choice(ITEMS) for _ in range(random.randrange(4))],
    }
    event, properties = tutorial(random)
    return event, {
        **properties,
        "$import": True,
        **{name: values[kind]() for name, kind in TYPED.items()},
    }


def odd(random: Random) -> tuple[str, dict[str, Any]]:
    """A tutorial event with one of the oddities that real projects hold."""
    event, properties = tutorial(random)
    text = random.choice(TEXTS)
    oddities: tuple[dict[str, Any], ...] = (
        {f"name {text[:9]}": 1, "insert_id\ufffd": "x"},
        {"insert_id": f"own-{random.randrange(10**6)}", "event": "a property", "time ": 1},
        {"userName": "1", "username": "2", "$userName": "3", "UTM_Medium": "a", "utm_medium": "b"},
        {"$browser_version": random.choice((56, 99, "91.0.4472.101", None))},
        {"item_price": random.choice((800, 19.99, 0, -5.5))},
        {"item_id": random.choice((29066, None, True))},
        {"order_id": 2033513821949367296 + random.randrange(1000)},  # beyond 2**53
        {"basket": [{"sku": "a-1", "tags": [text, None], "size": {"w": 1.5, "h": 2}}], "empty": {}},
        {"payload": '{"displayText":"\\u00e9","n":[1,2]}', "(# of Items)": 3, "A/B": "b", "a.b": 1},
        {"distinct_id": random.randrange(10**9)},
        {"distinct_id": f"$device:{random.getrandbits(64):016x}"},
        {"distinct_id": None, "mp_original_distinct_id": "anonymous"},
    )
    return event, properties | {"note": text} | random.choice(oddities)


def bare(random: Random) -> tuple[str, dict[str, Any]]:
    """An event without `distinct_id`, `$insert_id` or the time of receipt, which most have."""
    _, properties = tutorial(random)
    for name in random.choice((("distinct_id",), ("$insert_id",), ("$mp_api_timestamp_ms",),
                               ("distinct_id", "$insert_id", "$mp_api_endpoint"))):  # fmt: skip
        del properties[name]
    return random.choice(("Signed up", "$identify", "\u8cfc\u5165")), properties


SHAPES: dict[str, tuple[tuple[Kind, int], ...]] = {
    "small": ((tutorial, 256),),
    "wide": ((web, 192), (mobile, 128)),
    "typed": ((typed, 256),),
    "mixed": ((tutorial, 160), (web, 80), (mobile, 60), (odd, 160), (bare, 40)),
}
"""The kinds of each shape and how many variants of each are rendered."""
