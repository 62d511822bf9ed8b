"""The console in a real browser: Debian's chromium, headless, driven by playwright (PyPI).

    python tests/console.py http://127.0.0.1:7480 TOKEN [FOLDER FOR SCREENSHOTS]

The server runs with --demo. Fails with the first thing that is not as it should be.
"""

import json
import sys
import urllib.request
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

BASE, TOKEN = sys.argv[1], sys.argv[2]
SHOTS = Path(sys.argv[3]) if len(sys.argv) > 3 else None
SKU, CHANNEL, NODE = "85123A", "Germany", "warehouse"


def call(method, path, body=None):
    request = urllib.request.Request(BASE + path, method=method, headers={"authorization": f"Bearer {TOKEN}"})
    if body is not None:
        request.add_header("content-type", "application/json")
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def tell(number, node, quantity, kind="adjustment"):
    event = {"id": f"console-{number}", "source": "console", "type": kind, "occurred_at": "2026-01-01T00:00:00Z",
             "sku": SKU, "node": node, "quantity": quantity, "reason": "console test"}
    return call("POST", "/v1/events", {"events": [event]})["results"][0]


def shoot(page, name):
    if SHOTS:
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def fits(page, name):
    """Nothing makes the page itself wider than its window."""
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{name} is {wide} px wider than the window"


def sign_in(page):
    """With the keyboard alone."""
    page.goto(f"{BASE}/console")
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#availability-title")).to_be_visible()


def wrong_token(page):
    page.goto(f"{BASE}/console")
    page.fill("#token", "nobody's")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("UNAUTHENTICATED")
    expect(page.locator("#sign-in")).to_be_visible()


def availability(page):
    page.fill("#channel", CHANNEL)
    page.fill("#sku", "85")
    page.keyboard.press("Enter")
    line = page.locator(f'tr[data-sku="{SKU}"]')
    expect(line).to_be_visible()
    before = call("GET", f"/v1/availability/{SKU}?channel={CHANNEL}")["items"][0]["available"]
    shown = lambda units: f"{units:,}"
    expect(line.locator("td").nth(1)).to_have_text(shown(before))
    # A change somewhere else is seen without being asked for.
    assert tell(1, NODE, -7)["status"] == "applied"
    expect(line.locator("td").nth(1)).to_have_text(shown(before - 7))
    shoot(page, "availability")
    page.fill("#sku", "no such sku")
    page.keyboard.press("Enter")
    expect(page.locator("#availability-hint")).to_have_text("No sku begins so.")
    page.fill("#channel", "Mars")
    page.fill("#sku", "85")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("UNKNOWN_CHANNEL")


def position(page):
    page.goto(f"{BASE}/console#position/{SKU}/{NODE}")
    free = call("GET", f"/v1/positions/{SKU}/{NODE}")["free"]
    expect(page.locator("#buckets .card").first).to_contain_text(f"{free:,}")
    newest = page.locator("#history tbody tr").first
    expect(newest).to_contain_text("adjustment: console test")
    expect(newest).to_contain_text("7 free → loss")
    lsn = int(newest.locator("td").first.inner_text())
    page.fill("#position-lsn", str(lsn - 1))
    page.keyboard.press("Enter")
    expect(page.locator("#buckets .card").first).to_contain_text(f"{free + 7:,}")
    shoot(page, "position")


def reservations(page):
    page.click("nav a[href='#reservations']")
    expect(page.locator("#reservations-title")).to_be_visible()
    id = "01942f5e-7a3c-7e2d-9c1a-5d0f6f6b8a01"
    call("POST", "/v1/reservations", {"id": id, "channel": CHANNEL, "ttl_ms": 600000,
                                      "lines": [{"sku": SKU, "quantity": 2}]})
    notice = page.locator("#notices tr").first
    expect(notice).to_contain_text("reserved")
    notice.locator("a").click()
    expect(page.locator("#reservation")).to_contain_text("held")
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#reservation button", has_text="confirm").click()
    expect(page.locator("#reservation .figures")).to_contain_text("confirmed")
    assert call("GET", f"/v1/reservations/{id}")["state"] == "confirmed"
    shoot(page, "reservations")


def channels(page):
    call("POST", "/v1/allocations", {"action": "allocate", "channel": CHANNEL, "sku": SKU, "node": NODE, "quantity": 3})
    page.click("nav a[href='#channels']")
    expect(page.locator("#channel-rows")).to_contain_text("United Kingdom")
    page.fill("#allocation-sku", SKU)
    page.keyboard.press("Enter")
    expect(page.locator("#allocations tbody tr").first).to_contain_text(CHANNEL)
    shoot(page, "channels")


def letters(page):
    assert tell(2, "annex", 5, "receipt")["code"] == "UNKNOWN_NODE"
    page.click("nav a[href='#letters']")
    line = page.locator("#letters-table tbody tr").first
    expect(line).to_contain_text("UNKNOWN_NODE")
    shoot(page, "letters")
    line.locator("button", has_text="Re-drive").click()
    expect(page.locator("#said")).to_contain_text("Refused again: UNKNOWN_NODE")
    call("PUT", "/v1/nodes/annex", {})
    line.locator("button", has_text="Re-drive").click()
    expect(page.locator("#letters-hint")).to_contain_text("There are none")
    assert call("GET", f"/v1/positions/{SKU}/annex")["free"] == 5


def webhooks(page):
    page.click("nav a[href='#webhooks']")
    expect(page.locator("#webhooks-hint")).to_contain_text("There are none")
    # Nobody listens there.
    call("PUT", "/v1/webhooks/erp", {"url": "http://127.0.0.1:9/hook", "channel": CHANNEL})
    page.click("nav a[href='#service']")
    page.click("nav a[href='#webhooks']")
    line = page.locator("#webhooks-table tbody tr").first
    expect(line).to_contain_text("erp")
    line.locator("button", has_text="Send a test").click()
    expect(page.locator("#said")).to_contain_text("erp: not delivered")
    shoot(page, "webhooks")
    call("DELETE", "/v1/webhooks/erp")


def audit(page):
    page.click("nav a[href='#audit']")
    newest = page.locator("#audit-table tbody tr").first
    expect(newest).to_contain_text("DELETE /v1/webhooks/erp")
    expect(newest).to_contain_text("admin")
    page.select_option("#audit-kind", "refusal")
    page.locator("#audit-form button").click()
    # The wrong token at the beginning.
    expect(page.locator("#audit-table tbody tr").last).to_contain_text("UNAUTHENTICATED")
    expect(page.locator("#audit-hint")).to_contain_text("administration:")
    page.select_option("#audit-kind", "administration")
    page.locator("#audit-form button").click()
    expect(newest).to_contain_text("DELETE /v1/webhooks/erp")
    for _ in range(60):
        call("PUT", "/v1/nodes/annex", {})
    page.locator("#audit-form button").click()
    expect(newest).to_contain_text("PUT /v1/nodes/annex")
    expect(page.locator("#audit-table tbody tr")).to_have_count(50)
    page.click("#audit-older")
    expect(page.locator("#audit-table tbody", has_text="DELETE /v1/webhooks/erp")).to_be_visible()
    shoot(page, "audit")


def service(page):
    page.click("nav a[href='#service']")
    for name in ["error budget left", "failed messages", "messages given up", "sync lag", "dead letters"]:
        expect(page.locator("#figures")).to_contain_text(name)
    expect(page.locator("#charts .card")).to_have_count(6)
    first = page.locator("#charts polyline").first
    points = lambda: len((first.get_attribute("points") or "").split())
    for _ in range(15):
        call("GET", f"/v1/availability/{SKU}?channel={CHANNEL}")
        page.wait_for_timeout(500)
    assert points() >= 2, "charts are drawn as time passes"
    expect(page.locator("#refusal-rows")).to_contain_text("UNKNOWN_NODE")
    expect(page.locator("#source-rows")).to_contain_text("admin")
    shoot(page, "service")


def keyboard(page):
    """Everything can be reached: the skip link first, then the views in their order."""
    page.goto(f"{BASE}/console#availability")
    page.reload()
    expect(page.locator("#main")).to_be_focused()
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))
    views = ["Availability", "Position", "Reservations", "Channels", "Webhooks", "Dead letters", "Service", "Audit"]
    at = reached.index("Skip to content")
    assert reached[at + 1:at + 9] == views, reached


def reference(page):
    """The page of all calls shows each of them, and what it is made of."""
    page.goto(f"{BASE}/v1/reference")
    told = call("GET", "/v1/openapi.json")
    count = sum(len(operations) for operations in told["paths"].values())
    expect(page.locator("details")).to_have_count(count)
    one = page.locator("details", has_text="POST /v1/reservations Make").first
    one.locator("summary").click()
    expect(one).to_contain_text("lines[].quantity")
    expect(one).to_contain_text("Idempotency-Key")
    shoot(page, "reference")
    page.goto(f"{BASE}/console#service")


def leaves(page):
    page.click("#leave")
    expect(page.locator("#sign-in")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def main():
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        wrong = []
        context = browser.new_context(viewport={"width": 1200, "height": 800}, locale="en-US", color_scheme="light")
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        # Answers that refuse are expected here; what the page itself gets wrong is not.
        page.on("console", lambda said: wrong.append(said.text)
                if said.type == "error" and "Failed to load resource" not in said.text else None)
        page.on("request", lambda request: wrong.append(f"asked {request.url}")
                if not request.url.startswith((BASE, "data:")) else None)
        wrong_token(page)
        sign_in(page)
        for view in [availability, position, reservations, channels, letters, webhooks, audit, service, keyboard, reference, leaves]:
            view(page)
            print(f"console: {view.__name__} ok")
        context.close()
        for scheme in ["light", "dark"]:
            context = browser.new_context(viewport={"width": 360, "height": 740}, locale="en-US", color_scheme=scheme)
            page = context.new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto(f"{BASE}/console")
            fits(page, "sign-in")
            sign_in(page)
            for view in ["availability", f"position/{SKU}/{NODE}", "reservations/01942f5e-7a3c-7e2d-9c1a-5d0f6f6b8a01",
                         "channels", "webhooks", "letters", "service", "audit"]:
                page.goto(f"{BASE}/console#{view}")
                if view == "availability":
                    page.fill("#sku", "85")
                    page.keyboard.press("Enter")
                page.wait_for_timeout(2500 if view == "service" else 700)
                fits(page, view)
                shoot(page, f"narrow-{scheme}-{view.split('/')[0]}")
            page.goto(f"{BASE}/v1/reference")
            page.locator("details").nth(3).locator("summary").click()
            fits(page, "reference")
            shoot(page, f"narrow-{scheme}-reference")
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert ground == {"light": "rgb(247, 247, 245)", "dark": "rgb(20, 23, 26)"}[scheme], ground
            print(f"console: 360 px {scheme} ok")
            context.close()
        browser.close()
        assert not wrong, wrong


main()
