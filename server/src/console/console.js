// The console: what the HTTP face tells, for people. It has no rights of its own, only its user's token.

const $ = id => document.getElementById(id);
const VIEWS = ["availability", "position", "reservations", "channels", "webhooks", "letters", "service", "audit"];
/** What only administrators may look at. */
const ADMINS = ["#channels", "#webhooks", "#letters", "#audit"];
const EVERY_MS = 2000;
const POINTS = 90;
let token = sessionStorage.getItem("token");
let role = "";
let running = new AbortController();

// --- Talking to the server ---------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `the server answered ${status}`);
    this.status = status;
    this.code = problem.code;
  }
}

async function call(method, path, body, signal) {
  const headers = { authorization: `Bearer ${token}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server cannot be reached");
  }
  const text = await response.text();
  let told;
  try { told = JSON.parse(text); } catch { told = {}; }
  if (response.status === 401) leave("The token is not accepted any more: sign in again.");
  if (!response.ok) throw new Refused(response.status, told);
  return told;
}

const get = (path, signal) => call("GET", path, undefined, signal);
const part = encodeURIComponent;

/** Follows server-sent events until the signal says no, and comes back to where it was when the line breaks. */
async function follow(query, signal, take) {
  let cursor = "";
  while (!signal.aborted) {
    try {
      const headers = { authorization: `Bearer ${token}` };
      if (cursor) headers["last-event-id"] = cursor;
      const response = await fetch(`/v1/changes?${query}`, { headers, signal });
      if (!response.ok) {
        const problem = await response.json();
        // What happened from there on is not kept any more: it goes on with what comes.
        if (response.status === 410) [cursor, query] = ["", query.replace(/&from_lsn=\d+/, "")];
        throw new Refused(response.status, problem);
      }
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        rest += value;
        const events = rest.split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const of = name => event.split("\n").find(line => line.startsWith(`${name}: `))?.slice(name.length + 2);
          cursor = of("id") ?? cursor;
          if (of("data")) take(of("event"), JSON.parse(of("data")));
        }
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error instanceof Refused && error.status < 500 && error.status !== 410) { say(error); return; }
    }
    await new Promise(again => setTimeout(again, 1000));
  }
}

// --- Showing -----------------------------------------------------------------------------------------------------

function say(what) {
  if (what?.name === "AbortError") return;
  $("said").textContent = what ? (what.code ? `${what.message} (${what.code})` : what.message ?? what) : "";
}

function cell(text, kind) {
  const made = document.createElement("td");
  if (kind) made.className = kind;
  if (text instanceof Node) made.append(text); else made.textContent = text ?? "";
  return made;
}

function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells);
  return made;
}

function card(name, value, kind) {
  const made = document.createElement("div");
  made.className = "card";
  const label = document.createElement("div");
  label.className = "name";
  label.textContent = name;
  const number = document.createElement("div");
  number.className = `value ${kind ?? ""}`;
  number.textContent = value;
  made.append(label, number);
  return made;
}

function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "quiet";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

const moment = text => text ? new Date(text).toLocaleString() : "";
const whole = number => Math.round(number).toLocaleString();
const span = seconds =>
  !Number.isFinite(seconds) ? "–"
  : seconds < 1e-3 ? `${Math.round(seconds * 1e6)} µs`
  : seconds < 1 ? `${(seconds * 1e3).toFixed(1)} ms`
  : seconds < 120 ? `${seconds.toFixed(1)} s`
  : seconds < 7200 ? `${Math.round(seconds / 60)} min`
  : seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;

/** Runs what a form asks for, and says what went wrong. */
function onSubmit(form, act) {
  $(form).addEventListener("submit", async event => {
    event.preventDefault();
    say();
    try { await act(); } catch (error) { say(error); }
  });
}

// --- Availability ------------------------------------------------------------------------------------------------

let looking = new AbortController();

function showItem(item, fresh) {
  const body = $("availability-table").tBodies[0];
  const old = [...body.rows].find(line => line.dataset.sku === item.sku);
  if (fresh && !old) return;
  const later = item.next_supply ? `${whole(item.next_supply.quantity)} from ${moment(item.next_supply.from)}` : "";
  const link = document.createElement("a");
  link.href = `#position/${part(item.sku)}`;
  link.textContent = item.sku;
  const status = (item.status ?? "").replace("_", " ");
  const made = row(cell(link), cell(whole(item.available), "number"), cell(status, item.status), cell(later));
  made.dataset.sku = item.sku;
  if (fresh) made.classList.add("fresh");
  if (old) old.replaceWith(made); else body.append(made);
}

async function look() {
  looking.abort();
  looking = new AbortController();
  const { signal } = looking;
  const channel = $("channel").value.trim();
  const found = await get(`/v1/sku-names?limit=50&prefix=${part($("sku").value.trim())}`, signal);
  const answer = found.items.length
    ? await call("POST", "/v1/availability", { channel, skus: found.items }, signal)
    : { items: [], as_of_lsn: 0 };
  $("availability-table").tBodies[0].replaceChildren();
  answer.items.forEach(item => showItem(item, false));
  $("availability-table").hidden = answer.items.length === 0;
  $("availability-hint").textContent = answer.items.length === 0
    ? "No sku begins so."
    : `${answer.items.length === 50 ? "The first 50 skus" : `${answer.items.length} skus`} as of LSN ${answer.as_of_lsn}, and live from there.`;
  sessionStorage.setItem("channel", channel);
  if (answer.items.length === 0) return;
  const query = `channel=${part(channel)}&what=numbers,statuses&gather_ms=200&from_lsn=${answer.as_of_lsn + 1}`;
  follow(query, signal, (kind, told) => {
    if (kind === "change") showItem(told, true);
    if (kind === "redefined") look().catch(say);
    if (kind === "problem") say(told.detail);
  });
}

// --- Position ----------------------------------------------------------------------------------------------------

const BUCKETS = ["free", "held", "confirmed", "picked", "allocated", "safety", "damaged", "quality", "blocked", "on_hand", "inbound"];
let older = null;

async function lookAtPosition() {
  const [sku, node] = [$("position-sku").value.trim(), $("position-node").value.trim()];
  $("nodes-of-sku").hidden = Boolean(node);
  $("buckets").hidden = !node;
  if (!node) return lookAtNodes(sku);
  const lsn = $("position-lsn").value.trim();
  const path = `/v1/positions/${part(sku)}/${part(node)}`;
  const position = await get(lsn ? `${path}?at_lsn=${part(lsn)}` : path);
  const cards = BUCKETS.map(name => card(name.replace("_", " "), whole(position[name]), position[name] < 0 ? "bad" : ""));
  $("buckets").replaceChildren(...cards, card("as of LSN", position.as_of_lsn));
  $("history").tBodies[0].replaceChildren();
  await lookFurther(`${path}/history`, lsn ? Number(lsn) + 1 : null);
}

async function lookAtNodes(sku) {
  for (const id of ["history", "history-title", "older"]) $(id).hidden = true;
  $("history-hint").textContent = "";
  const found = await get(`/v1/positions/${part(sku)}`);
  const rows = found.items.map(position => {
    const link = document.createElement("a");
    link.href = `#position/${part(sku)}/${part(position.node)}`;
    link.textContent = position.node;
    const units = ["on_hand", "free", "held", "confirmed", "picked", "allocated", "inbound"];
    return row(cell(link), ...units.map(name => cell(whole(position[name]), "number")));
  });
  $("nodes-of-sku").tBodies[0].replaceChildren(...rows);
  if (!rows.length) say(`Nothing of ${sku} has been at any node.`);
}

async function lookFurther(path, before) {
  const page = await get(`${path}?limit=25${before ? `&before_lsn=${before}` : ""}`);
  const rows = page.items.map(item => {
    const moved = item.movements.map(movement => {
      const of = movement.channel ? ` (${movement.channel})` : movement.to_come ? " (to come)" : "";
      return `${whole(movement.quantity)} ${movement.from} → ${movement.to}${of}`;
    });
    const what = document.createElement("span");
    what.textContent = item.what + (item.reason ? `: ${item.reason}` : "");
    if (item.reservation) {
      const link = document.createElement("a");
      link.href = `#reservations/${item.reservation}`;
      link.textContent = ` ${item.reservation.slice(0, 8)}…`;
      what.append(link);
    }
    return row(cell(item.lsn, "number"), cell(moment(item.at)), cell(what), cell(moved.join(", "), "wrap"), cell(item.principal));
  });
  $("history").tBodies[0].append(...rows);
  const some = $("history").tBodies[0].rows.length > 0;
  $("history").hidden = !some;
  $("history-title").hidden = false;
  older = page.next_before_lsn ? () => lookFurther(path, page.next_before_lsn) : null;
  $("older").hidden = !older;
  $("history-hint").textContent = older ? "" : page.kept_from_lsn > 1
    ? `What happened before LSN ${page.kept_from_lsn} is not kept in the journal.`
    : some ? "That is all that ever happened here." : "Nothing ever happened here.";
}

// --- Reservations ------------------------------------------------------------------------------------------------

async function lookAtReservation() {
  const id = $("reservation-id").value.trim();
  showReservation(await get(`/v1/reservations/${part(id)}`));
}

function showReservation(found) {
  const facts = document.createElement("div");
  facts.className = "figures";
  facts.append(card("state", found.state), card("expires", moment(found.expires_at) || "never"), card("LSN", found.lsn));
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const name of ["Sku", "Node", "Units", "Held", "Confirmed", "Picked", "Shipped", "Promised for"]) {
    const title = document.createElement("th");
    title.scope = "col";
    if (["Units", "Held", "Confirmed", "Picked", "Shipped"].includes(name)) title.className = "number";
    title.textContent = name;
    head.append(title);
  }
  table.createTBody().append(...(found.lines ?? []).map(line => row(
    cell(line.sku), cell(line.node ?? `${line.group || "any"} (not chosen)`), cell(whole(line.quantity), "number"),
    cell(whole(line.held), "number"), cell(whole(line.confirmed), "number"), cell(whole(line.picked), "number"),
    cell(whole(line.shipped), "number"), cell(line.promised_for === null ? "nobody knows" : moment(line.promised_for)))));
  const wide = document.createElement("div");
  wide.className = "wide";
  wide.append(table);
  const act = verb => button(verb, async () => {
    say();
    if (!confirm(`${verb} reservation ${found.id}?`)) return;
    try {
      showReservation(await call("POST", `/v1/reservations/${found.id}/${verb}`, {}));
    } catch (error) { say(error); }
  });
  const acts = document.createElement("p");
  if (role !== "warehouse" && found.state === "held") acts.append(act("confirm"), " ", act("release"));
  if (role !== "warehouse" && found.state === "confirmed") acts.append(act("release"));
  $("reservation").replaceChildren(facts, document.createElement("p"), wide, acts);
}

function showNotice(told) {
  $("notices-hint").hidden = true;
  const link = document.createElement("a");
  link.href = `#reservations/${told.reservation}`;
  link.textContent = told.reservation;
  const what = told.reason ? `${told.what}: ${told.reason}` : told.what;
  const made = row(cell(moment(told.at)), cell(what), cell(told.channel), cell(link));
  made.classList.add("fresh");
  $("notices").prepend(made);
  while ($("notices").rows.length > 100) $("notices").lastChild.remove();
}

// --- Channels ----------------------------------------------------------------------------------------------------

function showChannels(channels) {
  $("channel-rows").replaceChildren(...channels.map(channel => row(
    cell(channel.name), cell(channel.parent), cell(channel.group ?? "all"), cell(whole(channel.buffer), "number"),
    cell(channel.strategy.replace("_", " ")))));
}

async function lookAtAllocations() {
  const told = await get(`/v1/allocations?sku=${part($("allocation-sku").value.trim())}`);
  const rows = told.allocations.map(share => row(cell(share.channel), cell(share.node), cell(whole(share.quantity), "number")));
  $("allocations").tBodies[0].replaceChildren(...rows);
  $("allocations").hidden = rows.length === 0;
  $("allocations-hint").textContent = rows.length ? `As of LSN ${told.as_of_lsn}.` : "Nothing of it is kept for a channel.";
}

// --- Webhooks ----------------------------------------------------------------------------------------------------

async function lookAtWebhooks() {
  const { items } = await get("/v1/webhooks");
  const deliveries = await Promise.all(items.map(hook => get(`/v1/webhooks/${part(hook.name)}/delivery`)));
  const rows = items.map((hook, at) => {
    const now = deliveries[at];
    const since = now.failing_since ? ` since ${moment(now.failing_since)}: ${now.error}` : "";
    const test = button("Send a test", async () => {
      say();
      try {
        const tried = await call("POST", `/v1/webhooks/${part(hook.name)}/test`, {});
        await lookAtWebhooks();
        say(tried.error ? `${hook.name}: not delivered: ${tried.error}` : `${hook.name}: delivered`);
      } catch (error) { say(error); }
    });
    const tells = `${hook.what.join(", ")}${hook.channel ? ` of ${hook.channel}` : ""}`;
    return row(cell(hook.name), cell(tells, "wrap"), cell(now.state + since, now.failing_since ? "wrap bad" : ""),
      cell(whole(now.waiting), "number"), cell(whole(now.delivered), "number"), cell(whole(now.failed), "number"),
      cell(whole(now.given_up), "number"), cell(hook.url, "wrap"), cell(test));
  });
  $("webhooks-table").tBodies[0].replaceChildren(...rows);
  $("webhooks-table").hidden = rows.length === 0;
  $("webhooks-hint").textContent = rows.length ? "Counted since the server's start." : "There are none: PUT /v1/webhooks/NAME makes one.";
}

// --- Dead letters ------------------------------------------------------------------------------------------------

async function lookAtLetters() {
  const told = await get("/v1/dead-letters?limit=100");
  const rows = told.items.map(letter => {
    const acts = document.createElement("span");
    const act = (text, method, path) => button(text, async () => {
      say();
      try {
        const done = await call(method, path, method === "POST" ? {} : undefined);
        if (done.status === "rejected") say(`Refused again: ${done.code}`);
        if (done.status === "undelivered") say(`Not delivered again: ${done.error}`);
        await lookAtLetters();
      } catch (error) { say(error); }
    });
    const path = `/v1/dead-letters/${letter.id}`;
    acts.append(act("Re-drive", "POST", `${path}/redrive`), " ", act("Discard", "DELETE", path));
    const event = document.createElement("code");
    event.textContent = JSON.stringify(letter.event ?? letter.message);
    const whose = letter.principal ?? `webhook ${letter.webhook}`;
    return row(cell(moment(letter.at)), cell(whose), cell(letter.code), cell(event, "wrap"), cell(acts));
  });
  $("letters-table").tBodies[0].replaceChildren(...rows);
  $("letters-table").hidden = rows.length === 0;
  $("letters-hint").textContent = rows.length === 0
    ? "There are none: every event that was told could be applied, or was refused for a reason that a second try does not mend; every message was delivered."
    : told.total > rows.length ? `The first ${rows.length} of ${whole(told.total)}.` : "";
}

// --- Service -----------------------------------------------------------------------------------------------------

/** Metrics as a map from a name with its labels to a number. */
function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const at = line.lastIndexOf(" ");
    found.set(line.slice(0, at), Number(line.slice(at + 1)));
  }
  return found;
}

function* series(metrics, name) {
  for (const [key, value] of metrics) {
    if (key !== name && !key.startsWith(`${name}{`)) continue;
    const labels = Object.fromEntries([...key.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(found => [found[1], found[2]]));
    yield { labels, value };
  }
}

/** A quantile of what an operation took between two scrapes, both faces together. */
function quantile(now, before, operations, share) {
  const counts = new Map();
  for (const [metrics, sign] of [[now, 1], [before, -1]]) {
    for (const { labels, value } of series(metrics, "stockline_request_duration_seconds_bucket")) {
      if (!operations.includes(labels.operation)) continue;
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + sign * value);
    }
  }
  const bounds = [...counts.keys()].sort((one, other) => one - other);
  const total = counts.get(Infinity) ?? 0;
  if (total <= 0) return NaN;
  let [low, below] = [0, 0];
  for (const bound of bounds) {
    const upTo = counts.get(bound);
    if (upTo >= total * share) {
      if (bound === Infinity) return low;
      return low + (bound - low) * (total * share - below) / Math.max(1, upTo - below);
    }
    [low, below] = [bound, upTo];
  }
  return low;
}

const sum = (metrics, name, fits = () => true) => {
  let total = 0;
  for (const { labels, value } of series(metrics, name)) if (fits(labels)) total += value;
  return total;
};

const CHARTS = [
  { name: "Availability p50 and p99", unit: span, of: (now, before) => [0.5, 0.99].map(share => quantile(now, before, ["availability"], share)) },
  { name: "Reservations p50 and p99", unit: span, of: (now, before) => [0.5, 0.99].map(share => quantile(now, before, ["reserve", "step"], share)) },
  { name: "Requests a second", unit: whole, of: (now, before, seconds) => [(sum(now, "stockline_request_duration_seconds_count") - sum(before, "stockline_request_duration_seconds_count")) / seconds] },
  { name: "Commands a second", unit: whole, of: (now, before, seconds) => [(sum(now, "stockline_commands_total") - sum(before, "stockline_commands_total")) / seconds] },
  { name: "Lag of the slowest source", unit: span, of: now => [Math.max(0, ...[...series(now, "stockline_source_lag_seconds")].map(one => one.value))] },
  { name: "Refusals a second", unit: number => number.toFixed(1), of: (now, before, seconds) => [(sum(now, "stockline_refusals_total") - sum(before, "stockline_refusals_total")) / seconds] },
];
const history = CHARTS.map(() => []);

function draw() {
  $("charts").replaceChildren(...CHARTS.map((chart, at) => {
    const points = history[at];
    const last = points.at(-1) ?? [];
    const made = card(chart.name, last.map(value => chart.unit(value)).join(" · ") || "–");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${POINTS} 40`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${chart.name}: ${last.map(value => chart.unit(value)).join(", ") || "nothing yet"}`);
    const most = Math.max(1e-9, ...points.flat().filter(Number.isFinite));
    (points[0] ?? []).forEach((_, which) => {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
      const start = POINTS - points.length;
      const spots = points.map((values, x) => [start + x, values[which]]).filter(([, value]) => Number.isFinite(value));
      line.setAttribute("points", spots.map(([x, value]) => `${x},${(38 - 36 * value / most).toFixed(2)}`).join(" "));
      if (which > 0) line.setAttribute("class", "second");
      svg.append(line);
    });
    made.append(svg);
    return made;
  }));
}

/** Of calls over HTTP, 99.9 % should not fail on our side. */
const PROMISED = 0.999;

function showService(now) {
  const calls = sum(now, "stockline_http_responses_total");
  const failed = sum(now, "stockline_http_responses_total", labels => labels.status.startsWith("5"));
  const budget = calls ? 1 - failed / (calls * (1 - PROMISED)) : 1;
  const one = name => now.get(name) ?? 0;
  const shortages = one("stockline_shortage_positions");
  const wrong = one("stockline_self_audit_wrong_total");
  const letters = one("stockline_dead_letters");
  const failing = Math.max(0, ...[...series(now, "stockline_webhook_failing_seconds")].map(found => found.value));
  const lag = Math.max(0, ...[...series(now, "stockline_source_lag_seconds")].map(found => found.value));
  $("figures").replaceChildren(
    card("error budget left (99.9 %)", `${Math.max(-999, budget * 100).toFixed(1)} %`, budget > 0.25 ? "good" : budget > 0 ? "warn" : "bad"),
    card("durable LSN", whole(one("stockline_durable_lsn"))),
    card("reservations active", whole(one("stockline_active_reservations"))),
    card("positions short", whole(shortages), shortages ? "bad" : ""),
    card("dead letters", whole(letters), letters ? "warn" : ""),
    card("failed messages", whole(sum(now, "stockline_webhook_failures_total")), failing ? "warn" : ""),
    card("messages given up", whole(sum(now, "stockline_webhook_dead_letters_total")), ""),
    card("messages waiting", whole(sum(now, "stockline_webhook_waiting_messages"))),
    card("sync lag", span(lag)),
    card("waiting commands", whole(one("stockline_queued_commands"))),
    card("not folded yet", whole(one("stockline_fold_lag_commands"))),
    card("followers", whole(one("stockline_followers"))),
    card("furthest behind", whole(one("stockline_follower_lag_commands"))),
    card("self-audit findings", whole(wrong), wrong ? "bad" : "good"));
  const of = (name, { principal, source }) => [...series(now, `stockline_source_${name}`)]
    .find(({ labels }) => labels.principal === principal && labels.source === source)?.value ?? 0;
  $("source-rows").replaceChildren(...[...series(now, "stockline_source_events_total")].map(({ labels, value }) => row(
    cell(labels.principal), cell(labels.source), cell(whole(value), "number"), cell(whole(of("refused_events_total", labels)), "number"),
    cell(whole(of("exceptions_total", labels)), "number"), cell(whole(of("missing_events", labels)), "number"),
    cell(span(of("lag_seconds", labels)), "number"), cell(span(of("silence_seconds", labels)), "number"))));
  $("refusal-rows").replaceChildren(...[...series(now, "stockline_refusals_total")]
    .sort((one, other) => other.value - one.value)
    .map(({ labels, value }) => row(cell(labels.code), cell(whole(value), "number"))));
}

async function watch(signal) {
  let before = null;
  let at = 0;
  while (!signal.aborted) {
    try {
      const response = await fetch("/metrics", { signal });
      const now = parse(await response.text());
      const moment = performance.now();
      if (before) {
        const seconds = (moment - at) / 1000;
        CHARTS.forEach((chart, index) => {
          history[index].push(chart.of(now, before, seconds));
          if (history[index].length > POINTS) history[index].shift();
        });
      }
      [before, at] = [now, moment];
      showService(now);
      draw();
    } catch (error) {
      if (error.name === "AbortError") return;
    }
    await new Promise(again => setTimeout(again, EVERY_MS));
  }
}

// --- Audit -------------------------------------------------------------------------------------------------------

let auditOlder = null;

async function lookAtAudit(before) {
  const kind = $("audit-kind").value;
  const told = await get(`/v1/audit?limit=50${kind ? `&kind=${kind}` : ""}${before ? `&before=${before}` : ""}`);
  const rows = told.items.map(item => row(
    cell(item.number, "number"), cell(moment(item.at)), cell(item.principal ?? "nobody known"),
    cell([item.face, item.from].filter(Boolean).join(" ")), cell(item.asked, "wrap"),
    cell([item.status, item.code].filter(Boolean).join(" "), item.kind === "refusal" ? "warn" : ""),
    cell(whole(item.count), "number")));
  const body = $("audit-table").tBodies[0];
  if (before) body.append(...rows); else body.replaceChildren(...rows);
  $("audit-table").hidden = body.rows.length === 0;
  auditOlder = told.next ? () => lookAtAudit(told.next) : null;
  $("audit-older").hidden = !auditOlder;
  $("audit-hint").textContent = body.rows.length ? `The chains end at ${told.anchors.join(" and ")}.` : "Nothing was done or refused yet.";
}

// --- Coming and going --------------------------------------------------------------------------------------------

function show() {
  const [view, ...rest] = location.hash.slice(1).split("/");
  const signedIn = Boolean(token);
  const chosen = signedIn ? (VIEWS.includes(view) ? view : "availability") : "sign-in";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== chosen;
  for (const link of $("nav").children) {
    if (link.hash === `#${chosen}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  $("nav").hidden = $("leave").hidden = !signedIn;
  say();
  const given = rest.map(decodeURIComponent);
  if (chosen === "position" && given[0]) {
    $("position-sku").value = given[0];
    $("position-node").value = given[1] ?? "";
    lookAtPosition().catch(say);
  }
  if (chosen === "reservations" && given[0]) {
    $("reservation-id").value = given[0];
    lookAtReservation().catch(say);
  }
  if (chosen === "webhooks") lookAtWebhooks().catch(say);
  if (chosen === "letters") lookAtLetters().catch(say);
  if (chosen === "audit") lookAtAudit().catch(say);
}

function leave(why) {
  running.abort();
  looking.abort();
  running = new AbortController();
  sessionStorage.clear();
  token = null;
  show();
  say(why);
  $("token").focus();
}

const options = names => names.map(name => {
  const made = document.createElement("option");
  made.value = name;
  return made;
});

async function enter() {
  const { signal } = running;
  const me = await get("/v1/me", signal);
  role = me.role;
  sessionStorage.setItem("token", token);
  if (role === "admin") {
    const [channels, nodes] = await Promise.all([get("/v1/channels", signal), get("/v1/nodes", signal)]);
    showChannels(channels.items);
    $("channel-names").replaceChildren(...options(channels.items.map(channel => channel.name)));
    $("node-names").replaceChildren(...options(nodes.items.map(node => node.name)));
    $("channel").value = sessionStorage.getItem("channel") ?? channels.items[0]?.name ?? "";
  } else {
    $("node-names").replaceChildren(...options(me.nodes));
    $("channel").value = me.channel ?? "";
  }
  for (const link of $("nav").children) {
    const admins = ADMINS.includes(link.hash) && role !== "admin";
    const not = { warehouse: ["#availability", "#reservations"], channel: ["#position"] }[role] ?? [];
    link.hidden = admins || not.includes(link.hash);
  }
  if (role !== "warehouse") {
    follow("what=reservations", signal, (kind, told) => kind === "reservation" && showNotice(told));
  }
  watch(signal);
  if (role === "warehouse" && !location.hash) location.hash = "#position";
  show();
  $("main").focus();
}

onSubmit("sign-in-form", async () => {
  token = $("token").value.trim();
  $("token").value = "";
  await enter();
});
onSubmit("availability-form", look);
onSubmit("position-form", lookAtPosition);
onSubmit("reservation-form", lookAtReservation);
onSubmit("allocation-form", lookAtAllocations);
onSubmit("audit-form", () => lookAtAudit());
$("audit-older").addEventListener("click", () => auditOlder?.().catch(say));
$("older").addEventListener("click", () => older?.().catch(say));
$("leave").addEventListener("click", () => leave(""));
addEventListener("hashchange", show);
show();
if (token) enter().catch(say); else $("token").focus();
