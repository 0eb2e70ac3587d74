// The page of the dashboard and of `edgefl report`. No library, no build step. What comes from devices is only ever set
// as text, never as HTML. In a report the data is in the page itself, and nothing is fetched.
"use strict";

const EVERY_MS = 2000, PAGE = 25, ROUNDS = 12;
const NS = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const fixed = JSON.parse($("data").textContent); // a report's data; null where a server has it
const state = { overview: null, devices: null, rounds: null, curves: null, versions: null, show: "", search: "", offset: 0,
  last: -1, skew: 0, failed: 0, open: new Set(), roundCount: ROUNDS, at: -1 };

// ---- small tools

function el(tag, props = {}, ...kids) {
  const node = tag === "svg" || props.svg ? document.createElementNS(NS, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "svg" || value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...kids.filter((kid) => kid !== null && kid !== undefined && kid !== ""));
  return node;
}
const shape = (tag, props, ...kids) => el(tag, { svg: true, ...props }, ...kids);
const fill = (node, ...kids) => node.replaceChildren(...kids.filter(Boolean));
const now = () => Date.now() / 1000 + state.skew;
const count = (n, one, many) => `${number(n)} ${n === 1 ? one : many || one + "s"}`;
const number = (n) => n.toLocaleString("en");
const percent = (x) => (x === null || x === undefined ? "–" : `${(100 * x).toFixed(x >= 0.9995 ? 0 : 1)} %`);
const small = (x) => (x === null || x === undefined ? "–" : x === 0 ? "0" : Math.abs(x) >= 1000 || Math.abs(x) < 0.001 ? x.toExponential(1) : String(Number(x.toPrecision(3))));
const joules = (x) => (x < 1000 ? `${small(x)} J` : x < 1e6 ? `${Number((x / 1e3).toPrecision(3))} kJ` : `${Number((x / 1e6).toPrecision(3))} MJ`);
function bytes(n) {
  if (n < 1000) return `${Math.round(n)} B`;
  const power = Math.min(3, Math.floor(Math.log10(n) / 3)), value = n / 1000 ** power;
  return `${Number(value.toFixed(value < 100 ? 1 : 0))} ${["kB", "MB", "GB"][power - 1]}`;
}

function span(s) {
  s = Math.max(0, s);
  if (s < 10) return `${s < 0.95 ? s.toFixed(1) : Number(s.toFixed(1))} s`;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}
const ago = (at) => (now() - at < 2 ? "just now" : `${span(Math.round(now() - at))} ago`);
const date = (at) => new Date(at * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

function when(at) { // a time that keeps itself up to date
  if (!at) return el("span", {}, "–");
  if (at < 1e8) return el("span", { title: "On the clock of the simulation" }, span(at));
  return el("time", { datetime: new Date(at * 1000).toISOString(), "data-at": at, title: date(at) }, fixed ? date(at) : ago(at));
}

// ---- talking to the server

const token = () => sessionStorage.getItem("edgefl-token") || "";

async function ask(path, options = {}) {
  for (let tries = 0; ; tries++) {
    const headers = { ...options.headers };
    if (token()) headers.Authorization = `Bearer ${token()}`;
    const answer = await fetch(path, { ...options, headers, cache: "no-cache" });
    if (answer.status !== 401 || tries > 4) return answer;
    if (options.silent && (state.asking || state.declined)) return answer;
    if (!(await askForToken(tries || token()))) return answer;
  }
}
async function read(path) {
  const answer = await ask(path, { silent: true });
  if (answer.ok) return answer.json();
  const said = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(said.text || answer.statusText), { status: answer.status });
}
async function act(path, body) {
  try {
    const answer = await ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}) });
    const said = await answer.json();
    toast(said.text, !(answer.ok && said.done));
  } catch (error) {
    toast(`The aggregator can't be reached: ${error.message}`, true);
  }
  refresh();
}
async function download(version) {
  const answer = await ask(`api/versions/${version}/model.onnx`);
  if (!answer.ok) return toast((await answer.json()).text, true);
  const link = el("a", { href: URL.createObjectURL(await answer.blob()), download: `${state.overview.summary.federation}-v${version}.onnx` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- dialogs

function dialog({ title, text, ok, wantsToken }) {
  const box = $("ask");
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-field").hidden = !wantsToken;
  $("ask-ok").textContent = ok;
  box.returnValue = "cancel";
  box.showModal();
  $(wantsToken ? "token" : "ask-ok").focus();
  return new Promise((done) => box.addEventListener("close", () => done(box.returnValue === "ok"), { once: true }));
}
async function askForToken(again) {
  if (state.asking) return false;
  state.asking = true;
  const text = "It is in the file dashboard.token in the aggregator's state_dir. This tab remembers it until it is closed.";
  const title = again ? "That token is not the aggregator's" : "The aggregator's token";
  const given = await dialog({ title, text, ok: "Continue", wantsToken: true });
  const typed = $("token").value.trim();
  $("token").value = "";
  state.asking = false;
  state.declined = !(given && typed); // then the page asks again only when it is told to
  if (given && typed) sessionStorage.setItem("edgefl-token", typed);
  return given && Boolean(typed);
}
let toastTimer;
function toast(text, bad) {
  const box = $("toast");
  box.textContent = text;
  box.classList.toggle("bad", Boolean(bad));
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.hidden = true; }, bad ? 9000 : 5000);
}

// ---- now

const HEADLINES = {
  open: (s) => `Round ${s.round} is open`,
  evaluating: (s) => `Round ${s.round} is being evaluated`,
  unmasking: (s) => `Round ${s.round} waits for its helpers`,
  judging: (s) => `Canaries judge the model of round ${s.round}`,
  done: () => "All rounds are done",
  stopped: () => "The aggregator has stopped",
};
function headline(s) {
  if (!state.overview.live) return count(Math.max(0, state.last), "round");
  if (!state.overview.connected && s.phase !== "done") return "No connection to the MQTT broker";
  if (HEADLINES[s.phase]) return HEADLINES[s.phase](s);
  return s.opens_at > now() + 1 ? `Round ${s.round} opens in ${span(s.opens_at - now())}` : "Waiting for devices";
}
function sentence(s) {
  if (!state.overview.live) return state.overview.made_from;
  if (!state.overview.connected && s.phase !== "done") return "Rounds go on as soon as the aggregator is connected again. Its log says why it is not.";
  const open = s.open;
  if (s.phase === "open" && open) {
    const asked = (open.counted || 0) + (open.waiting || 0) + (open.skipped || 0);
    const left = open.closes ? `, and it closes in ${span(open.closes - now())} at the latest` : "";
    const goal = open.waiting ? "" : ", and it waits for no others";
    return `${open.counted || 0} of ${count(asked, "device")} ${(open.counted || 0) === 1 && asked !== 1 ? "has" : "have"} reported${goal || left}.`;
  }
  if (s.phase === "waiting") return s.total ? `${s.present || 0} of ${count(s.total, "device")} can be asked now.` : "No device has been seen yet.";
  return `Model version ${s.version}.`;
}
function drawSilence() { // in place of what was true when the aggregator last answered; whether it is silent
  const { error, heard } = state, unreadable = error && error.status === 401;
  $("enter").hidden = !(state.failed && unreadable && state.declined);
  if (!state.failed || (heard && state.failed < 3)) return false;
  put($("headline"), unreadable ? "The dashboard needs its token" : error.status === 503 ? "The aggregator is busy" : "The aggregator does not answer");
  const why = error.status ? sentenceCase(error.message) : "Look at journalctl -u edgefl-aggregator on its machine";
  put($("sentence"), `${why}.${heard ? ` What is below is as it was ${ago(heard)}.` : ""}`);
  put($("waits"), "");
  $("progress").hidden = true;
  return true;
}
function drawNow() {
  if (drawSilence()) return;
  const { summary: s, connected } = state.overview, open = connected && s.phase === "open" ? s.open : null;
  put($("headline"), headline(s));
  put($("sentence"), sentence(s));
  const bar = $("progress");
  bar.hidden = !open;
  if (open) {
    const parts = [["in", open.counted || 0], ["", open.waiting || 0], ["out", open.skipped || 0]], all = parts.reduce((sum, [, n]) => sum + n, 0);
    bar.setAttribute("aria-valuemax", all);
    bar.setAttribute("aria-valuenow", open.counted || 0);
    bar.classList.toggle("solid", all > 80);
    const key = JSON.stringify(parts);
    if (bar.dataset.key !== key) {
      bar.dataset.key = key;
      fill(bar, ...parts.flatMap(([kind, n]) => (all > 80 ? (n ? [bit(kind, n)] : []) : Array.from({ length: n }, () => bit(kind, 1)))));
    }
  }
  const names = (open && open.waits_for) || [], more = open ? (open.waiting || 0) - names.length : 0;
  const out = open && open.skipped ? ` ${count(open.skipped, "device")} asked, but not waited for.` : "";
  put($("waits"), names.length ? `Waits for ${names.join(", ")}${more > 0 ? ` and ${more} more` : ""}.${out}` : out.trim());
}
function bit(kind, size) {
  const node = el("i", { class: kind });
  node.style.flexGrow = size;
  return node;
}
function put(node, text) { if (node.textContent !== text) node.textContent = text; }

function drawFigures() {
  const { summary: s, accuracy, loss } = state.overview, last = (state.rounds || [])[0] || {};
  const share = fixed ? [["Devices", number(s.total || 0), ""]] : [["Devices present", number(s.present || 0), ` of ${number(s.total || 0)}`]];
  const rows = [...share, ["Model version", `v${s.version}`, ""]];
  if (accuracy !== undefined) rows.push(["Accuracy", percent(accuracy), change(accuracy)]);
  else rows.push(["Loss", small(loss ?? last.loss ?? last.device_loss ?? last.train_loss), ""]);
  rows.push(last.round ? ["Sent in the last round", bytes(last.bytes_up || 0), ` up · ${bytes(last.bytes_down || 0)} down`] : ["Sent in the last round", "–", ""]);
  fill($("figures"), ...rows.map(([name, value, rest]) => el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, rest)))));
}
function change(accuracy) {
  const before = (state.rounds || []).filter((r) => r.accuracy !== undefined && r.state === "committed")[1];
  if (!before) return "";
  const points = 100 * (accuracy - before.accuracy);
  return Math.abs(points) < 0.05 ? " unchanged" : ` ${points > 0 ? "+" : "−"}${Math.abs(points).toFixed(1)}`;
}

function drawAdvice() {
  const told = state.overview.summary.advice || [];
  $("advice").hidden = !told.length;
  fill($("advice"), ...told.map((text) => el("p", {}, ...coded(text))));
}

// ---- devices

const STATES = { absent: "never seen", disconnected: "off line", lost: "lost", trouble: "in trouble", counted: "counted", missed: "did not count" };
function stateOf(d) { return d.barred ? (d.barred.startsWith("muted") ? "muted" : "in quarantine") : d.paused ? "paused by you" : STATES[d.state] || d.state; }
const coded = (text) => sentenceCase(text).split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part)); // between backticks
const remedyOf = (d) => (d.remedy ? el("div", { class: "remedy" }, ...coded(d.remedy)) : null);
function problemOf(d) { // the state and the reason, without saying one thing twice
  const what = stateOf(d), why = d.problem || "";
  return sentenceCase(!why || why.startsWith(what) ? why || what : `${what}: ${why}`);
}

function buttonFor(d) {
  if (!state.overview.actions) return null;
  const [text, verb] = d.barred ? ["Release", "release"] : d.paused ? ["Resume", "resume"] : ["Pause", "pause"];
  const call = () => act(`api/devices/${encodeURIComponent(d.id)}/${verb}`);
  return el("button", { type: "button", class: "quiet", "data-focus": `${verb}-${d.id}`, "aria-label": `${text} ${d.id}`, on: { click: call } }, text);
}
function drawAttention() {
  const all = state.overview.attention || [];
  $("attention").hidden = !all.length;
  keepFocus($("attention-list"), all, (d) => el("li", { class: `t-${d.tone || "good"}` },
    el("div", { class: "who" }, el("span", { class: "dot", "aria-hidden": "true" }), d.id),
    el("div", { class: "why" }, problemOf(d), remedyOf(d)),
    d.barred || d.paused ? buttonFor(d) : null));
}
const sentenceCase = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function deviceRow(d) {
  const counted = d.counted ? [`round ${number(d.counted)} `, el("span", { class: "faint", title: `It has counted ${count(d.times || 0, "time")}` }, `${number(d.times || 0)}×`)] : ["–"];
  const agent = [d.agent || "–", d.celsius !== undefined && d.celsius !== null ? el("span", { class: "faint" }, ` ${d.celsius} °C`) : null];
  return el("tr", { class: `t-${d.tone || "good"}` },
    el("th", { scope: "row", class: "name" }, d.id),
    el("td", { class: "c-state" }, el("span", { class: "state" }, el("span", { class: "dot", "aria-hidden": "true" }), stateOf(d))),
    el("td", { class: "reason" }, sentenceCase(d.problem || ""), remedyOf(d)),
    el("td", { class: "faint c-seen" }, when(d.seen)),
    el("td", { class: "c-counted" }, ...counted),
    el("td", { class: "num c-examples" }, d.examples ? number(d.examples) : "–"),
    el("td", { class: "num c-sent" }, d.bytes_up ? bytes(d.bytes_up) : "–"),
    el("td", { class: "c-agent" }, ...agent),
    el("td", { class: "c-do" }, buttonFor(d)));
}
const CHIPS = [["", "All"], ["attention", "Needs attention"], ["ready", "Ready"], ["training", "Training"], ["trouble", "In trouble"],
  ["paused", "Paused"], ["barred", "Quarantine"], ["counted", "Counted"], ["missed", "Missed"], ["lost", "Lost"], ["disconnected", "Off line"], ["absent", "Never seen"]];
function drawDevices() {
  const found = fixed ? filtered(state.devices) : state.devices;
  const shown = found.shown || {};
  keepFocus($("chips"), CHIPS.filter(([kind]) => kind === "" || shown[kind] || kind === state.show), ([kind, name]) =>
    el("button", { type: "button", "data-focus": `chip-${kind}`, "aria-pressed": String(state.show === kind), on: { click: () => choose({ show: kind }) } },
      name, el("b", {}, number(shown[kind] || 0))));
  $("chips").hidden = !found.total;
  $("fleet").classList.toggle("long", found.devices.some((d) => d.id.length > 20));
  keepFocus($("fleet").tBodies[0], found.devices, deviceRow);
  const none = !found.devices.length;
  $("fleet").parentElement.hidden = none;
  $("fleet-empty").hidden = !none;
  put($("fleet-empty"), found.total ? "No device matches." : "No device has been seen yet. Start an agent, and it appears here.");
  const pager = $("pager"), first = found.offset + 1, last = found.offset + found.devices.length;
  pager.hidden = found.matching <= PAGE;
  keepFocus(pager, pager.hidden ? [] : ["<", `${number(first)}–${number(last)} of ${number(found.matching)}`, ">"], (part) => {
    if (part !== "<" && part !== ">") return el("span", {}, part);
    const step = part === "<" ? -PAGE : PAGE, off = part === "<" ? found.offset === 0 : last >= found.matching;
    return el("button", { type: "button", class: "quiet", "data-focus": `page${part}`, disabled: off, on: { click: () => choose({ offset: Math.max(0, found.offset + step) }) } }, part === "<" ? "Earlier" : "Later");
  });
}
function filtered(all) { // a report has every row in the page
  const kinds = (d) => [d.state, d.barred ? "barred" : "", d.paused ? "paused" : "", ["bad", "gone"].includes(d.tone) ? "attention" : ""].filter(Boolean);
  const shown = { "": all.total };
  for (const d of all.devices) for (const kind of kinds(d)) shown[kind] = (shown[kind] || 0) + 1;
  const found = all.devices.filter((d) => (!state.show || kinds(d).includes(state.show)) && d.id.toLowerCase().includes(state.search.toLowerCase()));
  return { total: all.total, shown, matching: found.length, offset: state.offset, devices: found.slice(state.offset, state.offset + PAGE) };
}
function choose(what) {
  Object.assign(state, { offset: 0 }, what);
  if (fixed) drawDevices();
  else refresh();
}

// Draw a list again only when it has changed, and leave the focus where it was.
function keepFocus(parent, items, draw) {
  const key = JSON.stringify([items, state.show, [...state.open], state.roundCount]);
  if (parent.dataset.key === key) return;
  parent.dataset.key = key;
  const focus = parent.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  fill(parent, ...items.flatMap(draw));
  const again = focus && [...parent.querySelectorAll("[data-focus]")].find((node) => node.dataset.focus === focus);
  if (again) again.focus();
}

// ---- rounds and models

function roundRows(r) {
  const open = state.open.has(r.round);
  const flip = () => { if (!state.open.delete(r.round)) state.open.add(r.round); drawRounds(); };
  const rows = [el("tr", {},
    el("th", { scope: "row" }, el("button", { type: "button", class: "fold", "data-focus": `round-${r.round}`, "aria-expanded": String(open), on: { click: flip } }, number(r.round))),
    el("td", { class: `s-${r.state}` }, r.state),
    el("td", { class: "num" }, r.asked ? `${r.reported} of ${r.asked}` : String(r.reported || 0)),
    el("td", { class: "num" }, percent(r.accuracy ?? r.device_accuracy)),
    el("td", { class: "num" }, small(r.loss ?? r.device_loss ?? r.train_loss)),
    el("td", { class: "num" }, bytes(r.bytes_up || 0)), el("td", { class: "num" }, bytes(r.bytes_down || 0)),
    el("td", { class: "num" }, span(r.seconds || 0)), el("td", { class: "faint" }, when(r.closed_at)))];
  if (open) rows.push(el("tr", { class: "detail" }, el("td", { colspan: 9 }, detail(r))));
  return rows;
}
function detail(r) {
  const list = el("dl"), add = (name, text, kind) => text && list.append(el("dt", { class: kind }, name), el("dd", { class: kind }, text));
  add("Why", r.why);
  add("Personal models", r.personal ? `${r.own || 0} of ${count(r.personal, "device")} keep their own` : "");
  add("Personal accuracy", r.personal_accuracy !== undefined ? `${percent(r.personal_accuracy)}; of what training starts from ${percent(r.device_accuracy)}` : "");
  add("Personal loss", r.personal_loss !== undefined ? `${small(r.personal_loss)}; of what training starts from ${small(r.device_loss)}` : "");
  add("Loss", small(r.loss ?? r.device_loss ?? r.train_loss), "narrow");
  add("Sent", `${bytes(r.bytes_up || 0)} up, ${bytes(r.bytes_down || 0)} down`, "narrow");
  add("Took", span(r.seconds || 0), "narrow");
  add("Closed", r.closed_at > 1e8 ? date(r.closed_at) : "", "narrow");
  add("Model", r.restored !== undefined ? `version ${r.version}, again that of version ${r.restored}` : `version ${r.version}`);
  add("Reported", (r.devices || []).join(", ") + (r.reported > (r.devices || []).length && r.devices ? ` and ${r.reported - r.devices.length} more` : ""));
  add("Examples", r.num_examples ? number(r.num_examples) : "");
  add("Refused", r.rejected ? count(r.rejected, "update") : "");
  add("Had to wait", r.deferred ? count(r.deferred, "update") : "");
  add("Late", r.late ? `${count(r.late, "update")} of earlier rounds` : "");
  for (const [device, why] of Object.entries(r.missed || {})) add(`Without ${device}`, why);
  const more = (r.without || 0) - Object.keys(r.missed || {}).length;
  add("Without", more > 0 ? `${count(more, "device")} more` : "");
  return list;
}
function drawRounds() {
  const all = state.rounds || [];
  $("past").parentElement.hidden = !all.length;
  $("past-empty").hidden = Boolean(all.length);
  keepFocus($("past").tBodies[0], all.slice(0, state.roundCount), roundRows);
  $("past-more").hidden = all.length <= state.roundCount;
}
function drawVersions() {
  const all = state.versions || [], scores = all.map((v) => v.accuracy).filter((a) => a !== undefined), best = Math.max(...scores);
  $("models").hidden = !all.length;
  keepFocus($("versions").tBodies[0], all, (v) => {
    const tags = [...(v.tags || []), v.current ? "in use" : "", fixed && scores.length > 1 && v.accuracy === best ? "best" : ""].filter(Boolean);
    const buttons = state.overview.actions ? [
      v.current ? null : el("button", { type: "button", class: "quiet", "data-focus": `back-${v.version}`, "aria-label": `Roll back to version ${v.version}`, on: { click: () => rollBack(v.version) } }, "Roll back"),
      el("button", { type: "button", class: "quiet", "data-focus": `get-${v.version}`, "aria-label": `Download version ${v.version}`, on: { click: () => download(v.version) } }, "Download")] : [];
    return el("tr", {}, el("th", { scope: "row" }, `v${v.version}`, ...tags.map((t) => el("span", { class: "tag" }, t))),
      el("td", {}, v.restored !== undefined ? `roll-back to v${v.restored}` : v.round ? `round ${number(v.round)}` : v.version ? "–" : "model file"),
      el("td", { class: "num" }, percent(v.accuracy)), el("td", { class: "num" }, small(v.loss)), el("td", { class: "faint" }, when(v.closed_at)),
      el("td", {}, ...buttons));
  });
}
async function rollBack(version) {
  const text = `Version ${version} becomes a new version, and rounds go on from there. An open round ends with it.`;
  if (await dialog({ title: `Roll back to version ${version}?`, text, ok: "Roll back" })) act(`api/versions/${version}/rollback`);
}

// ---- curves

const CHARTS = [
  { id: "accuracy", title: "Accuracy", a: "accuracy", b: "device_accuracy", names: ["test set", "on devices"], show: percent, most: 1,
    blank: "Accuracy appears with [evaluate] test_data or holdout, where the model gives classes." },
  { id: "loss", title: "Loss", a: "loss", b: "device_loss", names: ["test set", "on devices"], spare: "train_loss", spareName: "in training", show: small, low: 0, blank: "Loss appears after the first round." },
  { id: "personal", title: "Personal accuracy", a: "personal_accuracy", b: "device_accuracy", names: ["that devices keep", "that training starts from"], show: percent, most: 1, rare: true, blank: "" },
  { id: "bytes", title: "Bytes a round", a: "bytes_up", b: "bytes_down", names: ["up", "down"], show: bytes, low: 0, bars: true, blank: "Appears after the first round." },
  { id: "time", title: "Time a round", a: "seconds", names: [""], show: span, low: 0, bars: true, blank: "Appears after the first round." },
  { id: "energy", title: "Energy a round", a: "joules_high", b: "joules_low", names: ["at most", "at least"], show: joules, low: 0, rare: true, blank: "" },
];
function drawCharts() {
  const c = state.curves;
  put($("curves-note"), c.rounds_per_point > 1 ? `Each point stands for ${c.rounds_per_point} rounds` : "");
  for (const chart of CHARTS) {
    if (chart.rare && !(c[chart.a] || []).some((x) => x)) continue;
    if (!chart.node) $("charts").append(chart.node = el("figure", { class: "chart", id: `chart-${chart.id}` }));
    drawChart(chart, c);
  }
}
function series(chart, c) {
  let list = [[c[chart.a], "a", chart.names[0]], [chart.b ? c[chart.b] : [], "b", chart.names[1]]].filter(([v]) => v && v.some((x) => x !== null));
  if (!list.length && chart.spare && c[chart.spare].some((x) => x !== null)) list = [[c[chart.spare], "a", chart.spareName]];
  if (list.length === 1) list[0][1] = "a";
  return list;
}
function scale(chart, list) {
  const values = list.flatMap(([v]) => v).filter((x) => x !== null);
  if (chart.bars && list.length > 1) list[0][0].forEach((x, i) => values.push(x + list[1][0][i]));
  let low = chart.low ?? Math.min(...values), high = Math.max(...values);
  if (high === low) high = low + (Math.abs(low) * 0.1 || 1);
  const step = niceStep((high - low) / 3);
  low = Math.floor(low / step + 1e-9) * step;
  high = Math.ceil(high / step - 1e-9) * step;
  if (chart.most !== undefined) high = Math.min(high, chart.most);
  const ticks = [];
  for (let t = low; t <= high + step / 1e6; t += step) ticks.push(t);
  return { low, high, ticks };
}
function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 2.5, 5].find((m) => m * power >= rough) || 10);
}
function drawChart(chart, c) {
  const list = series(chart, c), n = c.round.length, figure = chart.node;
  const legend = list.length > 1 ? el("span", { class: "legend" }, ...list.map(([, kind, name]) => el("span", { class: kind === "b" ? "second" : "" }, el("i"), name)))
    : el("span", {}, list.length && list[0][2] ? list[0][2] : "");
  const value = el("strong");
  const caption = el("figcaption", {}, chart.title, legend, value);
  if (!list.length || !n) return fill(figure, caption, el("div", { class: "blank" }, chart.blank));
  const width = Math.max(240, figure.clientWidth - 38), height = matchMedia("(max-width: 720px)").matches ? 160 : 180;
  const { low, high, ticks } = scale(chart, list), left = 52, right = 6, top = 10, bottom = 24;
  const slot = (width - left - right) / n;
  const x = (i) => (chart.bars ? left + slot * (i + 0.5) : n === 1 ? (left + width - right) / 2 : left + (i * (width - left - right)) / (n - 1));
  const y = (v) => top + ((high - v) / (high - low)) * (height - top - bottom);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": describe(chart, c, list) });
  for (const t of ticks) {
    svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: y(t), y2: y(t) }),
      shape("text", { x: left - 10, y: y(t) + 4, "text-anchor": "end" }, tickText(chart, t, ticks)));
  }
  const places = n < 3 ? [...Array(n).keys()] : [0, Math.floor((n - 1) / 2), n - 1];
  for (const i of places) svg.append(shape("text", { x: chart.bars && n > 2 && i === 0 ? left : x(i), y: height - 4, "text-anchor": n < 3 ? "middle" : i === 0 ? "start" : i === n - 1 ? "end" : "middle" }, (i === 0 ? "round " : "") + number(c.round[i])));
  if (chart.bars) svg.append(...bars(list, x, y, slot, low));
  else for (const [v, kind] of list) svg.append(...lines(v, kind, x, y, height - bottom, list.length === 1 || kind === "a"));
  const cross = shape("g", {});
  svg.append(cross);
  const show = (i) => {
    const at = i < 0 ? lastWith(list[0][0]) : i;
    value.textContent = list.map(([v]) => (v[at] === null ? "–" : chart.show(v[at]))).join(chart.bars ? " · " : " / ");
    fill(cross);
    if (i < 0) return;
    cross.append(shape("line", { class: "cross", x1: x(i), x2: x(i), y1: top, y2: height - bottom }));
    if (!chart.bars) for (const [v] of list) if (v[i] !== null) cross.append(shape("circle", { class: "mark", cx: x(i), cy: y(v[i]), r: 4 }));
    legend.textContent = `round ${number(c.round[i])}`;
  };
  chart.showAt = (i) => { show(i); if (i < 0) drawChart(chart, c); };
  svg.addEventListener("pointermove", (e) => {
    const box = svg.getBoundingClientRect(), place = ((e.clientX - box.left) / box.width) * width;
    pointAt(Math.max(0, Math.min(n - 1, chart.bars ? Math.floor((place - left) / slot) : Math.round(((place - left) / (width - left - right)) * (n - 1)))));
  });
  svg.addEventListener("pointerleave", () => pointAt(-1));
  svg.addEventListener("blur", () => pointAt(-1));
  svg.addEventListener("keydown", (e) => {
    const from = state.at < 0 ? n - 1 : state.at, to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: n - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    pointAt(Math.max(0, Math.min(n - 1, to)));
    put($("readout"), `Round ${c.round[state.at]}: ${list.map(([v, , name]) => `${name || chart.title} ${v[state.at] === null ? "not known" : chart.show(v[state.at])}`).join(", ")}`);
  });
  const focused = figure.contains(document.activeElement);
  fill(figure, caption, svg);
  show(-1);
  if (focused) svg.focus();
}
function pointAt(i) {
  if (state.at === i) return;
  state.at = i;
  for (const chart of CHARTS) {
    if (!chart.showAt) continue;
    if (i >= 0) chart.showAt(i);
    else if (!chart.node.contains(document.activeElement)) drawChart(chart, state.curves);
  }
}
const lastWith = (v) => { for (let i = v.length - 1; i >= 0; i--) if (v[i] !== null) return i; return 0; };
function tickText(chart, t, ticks) {
  if (chart.id === "accuracy") return `${Number((100 * t).toFixed(ticks[1] - ticks[0] < 0.01 ? 1 : 0))} %`;
  return Math.abs(t) < 1e-12 ? "0" : chart.show(t);
}
function lines(v, kind, x, y, floor, shaded) {
  const known = v.map((value, i) => [i, value]).filter(([, value]) => value !== null);
  if (known.length === 1) return [shape("circle", { class: "mark", cx: x(known[0][0]), cy: y(known[0][1]), r: 3.5 })];
  const path = known.map(([i, value], k) => `${k ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const area = `${path}L${x(known.at(-1)[0]).toFixed(1)} ${floor}L${x(known[0][0]).toFixed(1)} ${floor}Z`;
  return [shaded ? shape("path", { class: "area", d: area }) : null, shape("path", { class: kind, d: path })].filter(Boolean);
}
function bars(list, x, y, slot, low) {
  const wide = Math.min(26, Math.max(1, slot * 0.72)), made = [];
  for (let i = 0; i < list[0][0].length; i++) {
    let from = low;
    for (const [v, kind] of list) {
      const to = from + (v[i] || 0), height = y(from) - y(to);
      if (height > 0.2) made.push(shape("rect", { class: kind, x: (x(i) - wide / 2).toFixed(1), y: y(to).toFixed(1), width: wide.toFixed(1), height: height.toFixed(1), rx: Math.min(2, wide / 3) }));
      from = to;
    }
  }
  return made;
}
function describe(chart, c, list) {
  const [v] = list[0], at = lastWith(v), first = v.findIndex((value) => value !== null);
  return `${chart.title} by round: from ${chart.show(v[first])} in round ${c.round[first]} to ${chart.show(v[at])} in round ${c.round[at]}. Arrow keys read single rounds.`;
}

// ---- the loop

function drawAll() {
  const s = state.overview.summary;
  put($("federation"), s.federation);
  document.title = `${s.federation} · EdgeFL`;
  put($("foot"), `EdgeFL ${s.edgefl || ""}${s.run ? ` · run ${s.run}` : ""}`);
  drawNow(); drawFigures(); drawAdvice(); drawAttention(); drawDevices(); drawRounds(); drawVersions();
}
function showLive() {
  const node = $("live"), silent = state.heard ? `No answer, last ${ago(state.heard)}` : "No answer";
  const text = fixed ? "Report" : state.failed ? silent : "Live";
  node.className = `live ${fixed ? "" : state.failed ? "off" : "on"}`;
  put($("live-text"), text);
}
let busy = false, again = false;
async function refresh() {
  if (fixed) return;
  if (busy) { again = true; return; }
  busy = true;
  let isNew = false;
  try {
    const query = new URLSearchParams({ show: state.show, search: state.search, offset: state.offset, limit: PAGE });
    const overview = await read("api/overview");
    const devices = await read(`api/devices?${query}`);
    const last = overview.summary.last && overview.summary.last.length ? overview.summary.last[0].round : 0;
    isNew = last !== state.last || overview.summary.version !== state.version;
    if (isNew) {
      const [rounds, curves, versions] = await Promise.all([read("api/rounds"), read("api/curves"), read("api/versions")]);
      Object.assign(state, { rounds: rounds.rounds, curves, versions: versions.versions, last, version: overview.summary.version });
    }
    Object.assign(state, { overview, devices, skew: overview.now - Date.now() / 1000, failed: 0, heard: overview.now });
  } catch (error) {
    Object.assign(state, { failed: state.failed + 1, error });
  }
  busy = false;
  showLive();
  if (state.failed) drawSilence();
  else {
    drawAll();
    if (isNew && state.at < 0) drawCharts();
  }
  if (again) { again = false; refresh(); }
}
function tick() { // every second: what changes by itself
  if (!state.overview) return;
  showLive();
  if (!fixed) { drawNow(); for (const node of document.querySelectorAll("time[data-at]")) put(node, ago(Number(node.dataset.at))); }
}

const THEMES = [["", "Auto", "as the system has them"], ["light", "Light", "light"], ["dark", "Dark", "dark"]];
function setTheme(name) {
  const [value, text, spoken] = THEMES.find(([v]) => v === name) || THEMES[0];
  if (value) document.documentElement.dataset.theme = value; else delete document.documentElement.dataset.theme;
  $("theme").textContent = text;
  $("theme").setAttribute("aria-label", `Colours: ${spoken}`);
}
const remembered = (name, value) => { try { return value === undefined ? localStorage.getItem(name) : localStorage.setItem(name, value); } catch { return null; } };

function start() {
  setTheme(remembered("edgefl-theme") || "");
  $("theme").addEventListener("click", () => {
    const at = THEMES.findIndex(([v]) => v === (document.documentElement.dataset.theme || ""));
    const next = THEMES[(at + 1) % THEMES.length][0];
    setTheme(next);
    remembered("edgefl-theme", next);
  });
  $("enter").addEventListener("click", () => { state.declined = false; refresh(); });
  $("ask-no").addEventListener("click", () => $("ask").close("cancel"));
  $("search").addEventListener("input", (e) => choose({ search: e.target.value.trim() }));
  $("more").addEventListener("click", () => { state.roundCount += 4 * ROUNDS; drawRounds(); });
  document.addEventListener("keydown", (e) => {
    if (e.key !== "/" || e.ctrlKey || e.metaKey || /^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
    e.preventDefault();
    $("search").focus();
  });
  let width = 0;
  new ResizeObserver(() => {
    if (state.curves && $("charts").clientWidth !== width) { width = $("charts").clientWidth; drawCharts(); }
  }).observe($("charts"));
  if (fixed) {
    Object.assign(state, { overview: fixed.overview, devices: fixed.devices, rounds: fixed.rounds.rounds, curves: fixed.curves,
      versions: fixed.versions.versions, last: fixed.curves.round.at(-1) || 0 });
    drawAll(); drawCharts(); showLive();
    return;
  }
  refresh();
  setInterval(() => { if (!document.hidden) refresh(); }, EVERY_MS);
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
}
start();
