"""Whether a dashboard and alert rules ask for what a server tells, in words that Prometheus understands.

    python tests/dashboard.py METRICS-URL DASHBOARD.json ALERTS.yml

promtool (Debian: prometheus) reads every expression.
"""

import json
import re
import subprocess
import sys
import tempfile
import urllib.request

metrics, dashboard, alerts = sys.argv[1:]
told = urllib.request.urlopen(metrics).read().decode()
known = set(re.findall(r"^# TYPE (\S+)", told, re.M))
for name in re.findall(r"^# TYPE (\S+) histogram", told, re.M):
    known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
panels = json.load(open(dashboard))["panels"]
expressions = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
assert expressions and all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
text = open(alerts).read()
asked = {name for _, expression in expressions for name in re.findall(r"\bstockline_\w+", expression)}
asked |= set(re.findall(r"\bstockline_\w+", text))
assert not asked - known, f"nobody tells {sorted(asked - known)}"
untold = {name for name in re.findall(r"^# TYPE (\S+)", told, re.M)} - {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
rules = [{"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m").replace("$instance", ".*")}
         for number, (_, expression) in enumerate(expressions)]
with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    json.dump({"groups": [{"name": "panels", "rules": rules}]}, file)
    file.flush()
    subprocess.run(["promtool", "check", "rules", file.name], check=True, stdout=subprocess.DEVNULL)
print(f"{len(panels)} panels, {len(asked)} metrics asked for; not shown: {', '.join(sorted(untold)) or 'none'}")
