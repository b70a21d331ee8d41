// Draws /api/state, once a second. Rates and quantiles are those of the last ten seconds: what was counted
// between two states. All texts go into the page as text, never as markup.

const PERIOD_MS = 1000;
const WINDOW = 10;
const SVG = "http://www.w3.org/2000/svg";

const history = [];  // {at, state}, the oldest first
let actions = [];
let wide = null;  // whether the graph was drawn from left to right
let drawn = "";  // the shape of the graph that was drawn

const byId = id => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// -- numbers as texts --------------------------------------------------------------------------------

function rate(number) {
  if (number === 0) return "0/s";
  return `${number >= 100 ? Math.round(number) : number.toPrecision(2).replace(/\.0$/, "")}/s`;
}

function seconds(value) {
  if (value === null) return "–";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1e3).toPrecision(value < 0.1 ? 2 : 3)} ms`;
  return `${value.toPrecision(3)} s`;
}

function bytes(number) {
  if (number === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  for (; number >= 1024 && at < units.length - 1; at++) number /= 1024;
  return `${at && number < 100 ? number.toFixed(1) : Math.round(number)} ${units[at]}`;
}

const sum = numbers => numbers.reduce((total, one) => total + one, 0);

// -- what happened between two states -----------------------------------------------------------------

class Since {
  constructor(before, now) {
    this.lasted = Math.max(0.001, (now.at - before.at) / 1000);
    this.before = before.state;
    this.now = now.state;
  }

  // How much a count has grown a second; one that fell was begun anew.
  rate(now, before) {
    return Math.max(0, now < (before ?? 0) ? now : now - (before ?? 0)) / this.lasted;
  }

  // The buckets of what was observed meanwhile.
  counts(now, before) {
    if (!now) return [];
    const old = before?.counts ?? [];
    const grown = now.counts.map((count, at) => count - (old[at] ?? 0));
    return grown.some(count => count < 0) ? now.counts : grown;
  }

  quantile(share, now, before) {
    return now ? quantile(share, this.counts(now, before), now.bounds_s) : null;
  }
}

// As Prometheus's histogram_quantile.
function quantile(share, counts, bounds) {
  const rank = share * sum(counts);
  let seen = 0;
  for (let at = 0; at < counts.length; at++) {
    if (counts[at] && seen + counts[at] >= rank) {
      if (at === bounds.length) return bounds[bounds.length - 1];
      const low = at ? bounds[at - 1] : 0;
      return low + (bounds[at] - low) * Math.max(0, rank - seen) / counts[at];
    }
    seen += counts[at];
  }
  return null;
}

function together(several) {
  const [first] = several;
  if (!first) return null;
  return {
    bounds_s: first.bounds_s,
    counts: first.counts.map((_, at) => sum(several.map(times => times.counts[at]))),
  };
}

const total = outcomes => sum(Object.values(outcomes));
const failed = outcomes => total(outcomes) - (outcomes.ok ?? 0);

// What is known of one Deployment: its figures, and how it is.
function figures(since, deployment) {
  const before = since.before.deployments.find(one => one.name === deployment.name);
  const replicas = since.now.replicas.filter(one => one.deployment === deployment.name);
  const fit = replicas.filter(one => one.connected && !one.ejected).length;
  const retries = since.rate(total(deployment.retries), before && total(before.retries));
  const found = {
    rate: since.rate(deployment.attempts, before?.attempts),
    p50: since.quantile(0.5, deployment.times, before?.times),
    p99: since.quantile(0.99, deployment.times, before?.times),
    errors: since.rate(deployment.errors, before?.errors),
    retries, fit, replicas: deployment.wanted ?? replicas.length,
  };
  if (!fit && deployment.wanted !== 0) found.condition = "down";
  else if (fit < found.replicas || deployment.queued || retries || found.errors) found.condition = "strained";
  else found.condition = "ok";
  return found;
}

// -- the page ----------------------------------------------------------------------------------------

function draw() {
  const now = history[history.length - 1];
  const since = new Since(history[0] === now ? now : history[0], now);
  const state = now.state;
  byId("flow").textContent = state.flow ?? "Flow";
  byId("documents").textContent = `documents: ${state.documents ?? "not known yet"}`;
  byId("version").textContent = `gatewayd ${state.version}`;
  const phase = byId("phase");
  phase.textContent = state.ready ? "ready" : state.phase === "serving" ? "not ready" : state.phase;
  phase.className = `chip ${state.ready ? "ok" : "down"}`;
  phase.title = state.reasons.map(one => one.detail).join("; ");
  trouble(state.reasons.map(one => one.detail).join("; "));
  drawTotals(since);
  drawGraph(since);
  drawReplicas(since);
  drawRequests(since);
  drawFailures(state);
  drawLimits(state);
  drawProcesses(since);
}

function drawTotals(since) {
  const then = requestsByKey(since.before);
  const rows = since.now.requests;
  const before = rows.map(row => then.get(key(row))).filter(Boolean);
  const all = together(rows.map(row => row.times));
  const old = together(before.map(row => row.times));
  const values = [
    ["requests", rate(since.rate(sum(rows.map(r => total(r.outcomes))), sum(before.map(r => total(r.outcomes)))))],
    ["failed", rate(since.rate(sum(rows.map(r => failed(r.outcomes))), sum(before.map(r => failed(r.outcomes)))))],
    ["median", seconds(since.quantile(0.5, all, old))],
    ["99th percentile", seconds(since.quantile(0.99, all, old))],
    ["under way", String(since.now.under_way)],
    ["connections", String(sum(since.now.ports.map(port => port.connections)))],
  ];
  byId("totals").replaceChildren(
    ...values.map(([name, value]) => element("div", {}, element("b", {}, value), element("span", {}, name))));
}

const key = row => `${row.protocol} ${row.endpoint}`;
const requestsByKey = state => new Map(state.requests.map(row => [key(row), row]));

function table(id, heads, rows, empty) {
  const head = element("tr", {}, ...heads.map(([name, kind]) => element("th", kind ? { class: kind } : {}, name)));
  const body = rows.map(cells => element("tr", {}, ...cells.map((cell, at) => {
    const kind = heads[at][1] ?? "";
    return element("td", kind ? { class: kind } : {}, cell);
  })));
  if (!rows.length) {
    body.push(element("tr", {}, element("td", { colspan: heads.length, class: "dim" }, empty)));
  }
  byId(id).replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

function drawReplicas(since) {
  const now = since.now;
  const named = one => `${one.deployment} ${one.shard} ${one.replica}`;
  const before = new Map(since.before.replicas.map(one => [named(one), one]));
  const several = new Set(now.deployments.filter(one => one.shards > 1).map(one => one.name));
  const canDrain = actions.find(one => one.name === "drain");
  const rows = now.replicas.map(one => {
    const condition = !one.connected ? "down" : one.ejected ? "strained" : "ok";
    const words = !one.connected ? one.state ?? "not connected" : one.ejected ? "ejected" : one.state ?? "connected";
    const old = before.get(named(one));
    const cpu = one.cpu_s === null ? "–" : `${Math.round(100 * since.rate(one.cpu_s, old?.cpu_s))} %`;
    const name = several.has(one.deployment) ? `${one.deployment} shard ${one.shard}` : one.deployment;
    const cells = [
      name, one.replica, element("span", { class: condition }, words), String(one.in_flight),
      one.node ? `${one.placement} ${one.node}` : one.pid === null ? "–" : String(one.pid), one.restarts === null ? "–" : String(one.restarts),
      bytes(one.memory_bytes), cpu, one.last_words ?? "",
    ];
    if (canDrain) {
      const values = { deployment: one.deployment, shard: one.shard, replica: one.replica };
      cells.push(one.pid === null && one.node === null ? "" : element("button", { onclick: () => ask(canDrain, values) }, "Drain"));
    }
    return cells;
  });
  const heads = [
    ["deployment"], ["replica"], ["state"], ["in flight", "number"], ["pid or node", "number"], ["restarts", "number"],
    ["memory", "number"], ["CPU", "number"], ["last words", "words"],
  ];
  table("replicas", canDrain ? [...heads, [""]] : heads, rows, "This Flow has no executors.");
}

function drawRequests(since) {
  const before = requestsByKey(since.before);
  const rows = since.now.requests.map(row => {
    const old = before.get(key(row));
    const words = Object.entries(row.outcomes).filter(([name, count]) => count && name !== "ok");
    return [
      row.protocol, row.endpoint || "(none)", rate(since.rate(total(row.outcomes), old && total(old.outcomes))),
      seconds(since.quantile(0.5, row.times, old?.times)), seconds(since.quantile(0.99, row.times, old?.times)),
      String(total(row.outcomes)), words.map(([name, count]) => `${count} ${name}`).join(", "),
    ];
  });
  table("requests", [
    ["protocol"], ["endpoint"], ["rate", "number"], ["median", "number"], ["p99", "number"], ["all", "number"],
    ["of them failed", "words"],
  ], rows, "No request has come yet.");
}

function drawFailures(state) {
  const rows = [...state.failures].reverse().map(one => [
    new Date(one.at_s * 1000).toLocaleTimeString(), one.request_id, one.protocol, one.endpoint || "(none)",
    element("span", { class: "down" }, one.outcome), seconds(one.took_s), one.reason,
  ]);
  table("failures", [
    ["at"], ["request"], ["protocol"], ["endpoint"], ["outcome"], ["took", "number"], ["why", "words"],
  ], rows, "None has failed.");
}

function drawLimits(state) {
  byId("limits").replaceChildren(...state.limits.map(one => {
    const shown = one.key.includes("bytes") ? bytes : number => String(Math.round(number));
    const meter = element("meter", { min: 0, max: one.limit, value: one.used, low: one.limit * 0.5, high: one.limit * 0.8, optimum: 0 });
    return element("p", {}, `${one.key}: ${shown(one.used)} of ${shown(one.limit)}`, meter);
  }));
}

function drawProcesses(since) {
  table("ports", [["port"], ["protocols"], ["connections", "number"]],
    since.now.ports.map(one => [one.port, one.protocols, String(one.connections)]), "Nothing listens yet.");
  const before = new Map(since.before.processes.map(one => [one.name, one]));
  table("processes", [
    ["process"], ["pid", "number"], ["memory", "number"], ["CPU", "number"], ["lag p99", "number"],
    ["restarts", "number"],
  ], since.now.processes.map(one => {
    const old = before.get(one.name);
    return [
      one.serves === false ? element("span", { class: "down" }, `${one.name} (does not serve)`) : one.name,
      String(one.pid), bytes(one.memory_bytes),
      one.cpu_s === null ? "–" : `${Math.round(100 * since.rate(one.cpu_s, old?.cpu_s))} %`,
      seconds(since.quantile(0.99, one.lag, old?.lag)), one.restarts === null ? "–" : String(one.restarts),
    ];
  }), "");
}

// -- the graph ---------------------------------------------------------------------------------------

const BOX = { width: 190, height: 74 };
const SMALLEST = 0.8;
const GAP = { along: 70, across: 24 };

// Each Deployment's layer: one more than that of what it waits for. What nobody waits for goes to the end.
function layered(deployments) {
  const named = new Map(deployments.map(one => [one.name, one]));
  const layers = new Map([["gateway", 0]]);
  const layerOf = name => {
    if (!layers.has(name)) {
      layers.set(name, 1);
      const needs = named.get(name)?.needs ?? [];
      layers.set(name, 1 + Math.max(0, ...needs.map(layerOf)));
    }
    return layers.get(name);
  };
  for (const one of deployments) layerOf(one.name);
  return layers;
}

function edgesOf(deployments) {
  const needed = new Set(deployments.flatMap(one => one.needs));
  const edges = deployments.flatMap(one => one.needs.map(from => ({ from, to: one.name, of: one.name })));
  for (const one of deployments) {
    if (!needed.has(one.name) && !one.floating) edges.push({ from: one.name, to: "answer", of: one.name });
  }
  if (!deployments.length) edges.push({ from: "gateway", to: "answer", of: null });
  return edges;
}

function drawGraph(since) {
  const place = byId("graph");
  const deployments = since.now.deployments.filter(one => !one.name.includes("/"));
  const isWide = place.clientWidth >= 700;
  const wanted = JSON.stringify(deployments.map(one => [one.name, one.needs, one.floating]));
  if (wanted !== drawn || isWide !== wide) {
    drawn = wanted;
    wide = isWide;
    place.replaceChildren(laidOut(deployments, isWide));
  }
  for (const one of deployments) show(since, one);
}

function laidOut(deployments, isWide) {
  const layers = layered(deployments);
  const last = 1 + Math.max(0, ...layers.values());
  const rows = Array.from({ length: last + 1 }, () => []);
  for (const [name, layer] of layers) rows[layer].push(name);
  rows[last].push("answer");
  const most = Math.max(...rows.map(row => row.length));
  const step = { along: (isWide ? BOX.width : BOX.height) + GAP.along, across: (isWide ? BOX.height : BOX.width) + GAP.across };
  const length = (last + 1) * step.along - GAP.along;
  const breadth = most * step.across - GAP.across;
  const at = new Map();
  rows.forEach((row, layer) => row.forEach((name, number) => {
    const along = layer * step.along;
    const across = (breadth - (row.length * step.across - GAP.across)) / 2 + number * step.across;
    at.set(name, isWide ? { x: along, y: across } : { x: across, y: along });
  }));
  const [width, height] = isWide ? [length, breadth] : [breadth, length];
  const picture = shape("svg", {
    viewBox: `-4 -4 ${width + 8} ${height + 8}`, role: "img",
    "aria-label": `The graph: ${deployments.map(one => one.name).join(", ")}`,
  });
  picture.setAttribute("width", width + 8);
  picture.style.maxWidth = `${width + 8}px`;
  picture.style.minWidth = `${Math.round(width * SMALLEST)}px`;  // below that its texts cannot be read
  for (const edge of edgesOf(deployments)) picture.append(...drawnEdge(edge, at, isWide, deployments));
  for (const [name, { x, y }] of at) picture.append(drawnBox(name, x, y));
  return picture;
}

function drawnEdge(edge, at, isWide, deployments) {
  const from = at.get(edge.from) ?? at.get("gateway");
  const to = at.get(edge.to);
  const [x1, y1] = isWide ? [from.x + BOX.width, from.y + BOX.height / 2] : [from.x + BOX.width / 2, from.y + BOX.height];
  const [x2, y2] = isWide ? [to.x, to.y + BOX.height / 2] : [to.x + BOX.width / 2, to.y];
  const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2];
  const bend = isWide ? `C${mx},${y1} ${mx},${y2} ${x2},${y2}` : `C${x1},${my} ${x2},${my} ${x2},${y2}`;
  const floats = deployments.find(one => one.name === edge.of)?.floating;
  const line = shape("path", { d: `M${x1},${y1} ${bend}`, "data-edge": `${edge.from} ${edge.to}`, "data-of": edge.of ?? "" },
    shape("title"));
  if (floats) line.dataset.floating = "yes";
  if (edge.to === "answer") return [line];
  const label = shape("text", { class: "rate", x: mx, y: my - 5, "text-anchor": "middle", "data-rate": edge.of });
  return [line, label];
}

function drawnBox(name, x, y) {
  const box = shape("g", { "data-node": name, transform: `translate(${x},${y})` });
  const isOurs = name === "gateway" || name === "answer";
  box.append(shape("rect", { width: BOX.width, height: BOX.height, rx: 8 }), shape("title"));
  const short = name.length > 24 ? `${name.slice(0, 23)}…` : name;
  box.append(shape("text", { class: "name", x: BOX.width / 2, y: isOurs ? BOX.height / 2 + 5 : 20, "text-anchor": "middle" }, short));
  if (!isOurs) {
    for (const [number, line] of ["speed", "load", "health"].entries()) {
      box.append(shape("text", { x: BOX.width / 2, y: 36 + 15 * number, "text-anchor": "middle", class: "dim", "data-line": line }));
    }
  }
  return box;
}

function show(since, deployment) {
  const found = figures(since, deployment);
  const place = byId("graph");
  const box = place.querySelector(`[data-node=${CSS.escape(deployment.name)}]`);
  const set = (line, text) => { box.querySelector(`[data-line=${line}]`).textContent = text; };
  set("speed", `p50 ${seconds(found.p50)}, p99 ${seconds(found.p99)}`);
  set("load", `${deployment.in_flight} in flight, ${deployment.queued} queued`);
  const lost = found.fit < found.replicas ? `${found.fit} of ${found.replicas} replicas` : `${found.fit} replica${found.fit === 1 ? "" : "s"}`;
  const worries = [lost];
  if (found.errors) worries.push(`errors ${rate(found.errors)}`);
  if (found.retries) worries.push(`retries ${rate(found.retries)}`);
  set("health", worries.join(", "));
  box.querySelector("rect").setAttribute("class", found.condition);
  const told = `${deployment.name}: ${rate(found.rate)}, median ${seconds(found.p50)}, p99 ${seconds(found.p99)}, `
    + `${deployment.in_flight} in flight, ${deployment.queued} queued, ${deployment.errors} errors and ${total(deployment.retries)} retries since the start, ${lost}`;
  box.querySelector("title").textContent = told;
  for (const line of place.querySelectorAll(`[data-of=${CSS.escape(deployment.name)}]`)) {
    const moves = found.condition !== "ok" || found.rate ? found.condition : "idle";
    line.setAttribute("class", line.dataset.floating ? `${moves} floating` : moves);
    line.setAttribute("stroke-width", String(1.5 + Math.min(4, Math.log10(1 + found.rate))));
    line.querySelector("title").textContent = told;
  }
  for (const label of place.querySelectorAll(`[data-rate=${CSS.escape(deployment.name)}]`)) {
    label.textContent = rate(found.rate);
  }
}

// -- actions -----------------------------------------------------------------------------------------

// Asked for where nothing says which replica, or which level.
const ON_ROWS = new Set(["drain"]);

async function drawActions() {
  const answer = await fetch("api/actions", { headers: shown() });
  if (!answer.ok) return;
  actions = (await answer.json()).actions;
  byId("actions").replaceChildren(...actions.filter(one => !ON_ROWS.has(one.name)).map(one =>
    element("button", { title: one.doc, onclick: () => ask(one, {}) }, sentence(one.name))));
}

const sentence = name => name[0].toUpperCase() + name.slice(1).replace(/[-_]/g, " ");

function ask(action, values) {
  byId("asking-title").textContent = sentence(action.name);
  byId("asking-doc").textContent = action.doc;
  byId("asking-answer").textContent = "";
  byId("asking-arguments").replaceChildren(...Object.entries(action.arguments).map(([name, doc]) =>
    element("label", { title: doc }, `${name}: ${doc}`, element("input", { name, value: values[name] ?? "" }))));
  const dialog = byId("asking");
  byId("asking-go").onclick = event => {
    event.preventDefault();
    run(action, values);
  };
  dialog.showModal();
}

async function run(action, values) {
  const given = {};
  for (const input of byId("asking-arguments").querySelectorAll("input")) {
    if (input.value === "") continue;
    // What came as a number goes back as one.
    given[input.name] = typeof values[input.name] === "number" ? Number(input.value) : input.value;
  }
  const answer = byId("asking-answer");
  answer.textContent = "…";
  answer.className = "";
  try {
    const response = await fetch(`api/${action.name}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...shown() },
      body: JSON.stringify(given),
    });
    const found = await response.json();
    answer.className = response.ok ? "ok" : "down";
    answer.textContent = response.ok ? told(found.result) : told(found.detail);
  } catch (error) {
    answer.className = "down";
    answer.textContent = String(error);
  }
}

const told = value => value === null || value === undefined ? "Done." : typeof value === "string" ? value : JSON.stringify(value, null, 1);

// -- the clock ---------------------------------------------------------------------------------------

function trouble(text) {
  const place = byId("trouble");
  place.hidden = !text;
  if (place.textContent !== text) place.textContent = text;
}

// From elsewhere, the site shows what is inside to administrators only.
const shown = () => byId("key").value ? { "X-API-Key": byId("key").value } : {};

function askWho() {
  const dialog = byId("asking");
  if (dialog.open) return;
  byId("asking-title").textContent = "Who are you?";
  byId("asking-doc").textContent = "This site shows a gateway to its administrators.";
  byId("asking-answer").textContent = "";
  byId("asking-arguments").replaceChildren();
  byId("asking-go").onclick = null;
  dialog.showModal();
}

async function look() {
  if (byId("asking").open && !history.length) return;  // the key is being typed
  try {
    const answer = await fetch("api/state", { cache: "no-store", headers: shown() });
    const found = await answer.json();
    if (answer.status === 401) askWho();
    else if (answer.ok && !actions.length) await drawActions();
    if (!answer.ok) throw new Error(told(found.detail));
    history.push({ at: Date.now(), state: found });
    while (history.length > WINDOW + 1) history.shift();
    draw();
  } catch (error) {
    byId("phase").textContent = "no answer";
    byId("phase").className = "chip down";
    trouble(`The gateway does not answer here: ${error.message ?? error}`);
    history.length = 0;
  }
}

async function watch() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise(done => setTimeout(done, PERIOD_MS));
  }
}

watch();
