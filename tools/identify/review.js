"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const items = data.items, pics = data.pics;
const place = new Map(items.map((item, i) => [item.m, i]));
const KEPT = "jaguar_kit review " + data.run;
const COLUMNS = ["mark", "image", "root", "decision", "identity", "by", "time"];
const PHOTO = "photo:";

// elements: only text goes in, so that no name is ever markup

function el(tag, told, ...inside) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(told || {})) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  for (const one of inside) if (one !== null && one !== undefined) made.append(one);
  return made;
}
const percent = p => p === null || p === undefined ? "" : p > 0.995 ? "over 99 %" : Math.round(100 * p) + " %";
const KINDS = {sure: ["●", "sure"], look: ["◐", "please look"], new: ["★", "probably new"]};

// decisions: rows that only grow; what they come to is worked out from them

let rows = [], said = new Map(), unkept = false;
let nobody = "browser-" + Math.random().toString(36).slice(2, 8); // who decides, until a name is given
const kept = () => JSON.parse(localStorage.getItem(KEPT) || "[]");
function restore() {
  try {
    rows = kept();
    nobody = localStorage.getItem("jaguar_kit nobody") || nobody;
    localStorage.setItem("jaguar_kit nobody", nobody);
    $("by").value = localStorage.getItem("jaguar_kit by") || "";
  } catch (error) { unkept = true; }
  work();
}
const person = () => $("by").value.trim() || nobody;
const key = row => JSON.stringify(COLUMNS.map(name => row[name]));
function gather() { // another window of this page may have added some
  const there = new Set(rows.map(key));
  rows.push(...kept().filter(row => !there.has(key(row))));
}
function keep() {
  try {
    gather();
    localStorage.setItem(KEPT, JSON.stringify(rows));
    unkept = false;
  } catch (error) { unkept = true; }
}
function work() {
  said = new Map();
  for (const row of standing([...rows].sort((a, b) => a.time < b.time ? -1 : a.time > b.time ? 1 : 0))) {
    const own = said.get(row.mark) || {finals: new Map(), out: new Map(), pairs: new Map()};
    said.set(row.mark, own);
    if (row.identity.startsWith(PHOTO)) own.pairs.set(row.identity, row);
    else if (row.decision === "no") {
      own.out.set(row.identity + "\n" + row.by, row);
      const before = own.finals.get(row.by);
      if (before && before.identity === row.identity) own.finals.delete(row.by); // thought again
    } else {
      own.finals.set(row.by, row);
      own.out.delete(row.identity + "\n" + row.by);
    }
  }
}
function standing(sorted) { // what nobody took back: an undo takes back the last that its person said of a photograph
  const last = new Map(), gone = new Set();
  for (const row of sorted) {
    const own = row.mark + "\n" + row.by;
    if (!last.has(own)) last.set(own, []);
    if (row.decision === "undo") { gone.add(row); gone.add(last.get(own).pop()); } else last.get(own).push(row);
  }
  return sorted.filter(row => !gone.has(row));
}
function outcome(mark) {
  const own = said.get(mark);
  if (!own) return {};
  const finals = [...own.finals.values()], noes = [...own.out.values()];
  const named = finals.filter(row => row.decision === "yes" || row.decision === "new");
  const names = new Set(named.map(row => row.identity)), held = name => named.filter(row => row.identity === name);
  const against = name => new Set([...named.filter(row => row.identity !== name),
    ...noes.filter(row => row.identity === name)].map(row => row.by)).size;
  const agreed = [...names].find(name => held(name).length > against(name));
  const outvoted = names.size === 1 && !agreed && against(named[0].identity) > named.length;
  const dispute = names.size && !agreed && !outvoted ? [...named, ...noes.filter(row => names.has(row.identity))] : null;
  const row = agreed ? held(agreed).pop() : outvoted ? undefined : named[named.length - 1] || finals[finals.length - 1];
  return {row, dispute, out: new Set(noes.map(row => row.identity)), pairs: own.pairs};
}
const settled = now => now.row && now.row.decision !== "skip" && !now.dispute;
function decide(at, decision, identity) {
  const item = items[at];
  rows.push({mark: item.m, image: item.i, root: data.root, decision, identity: identity || "",
    by: person(), time: new Date().toISOString()});
  keep(); work();
  $("tell").textContent = item.i + ": " + decision + " " + (identity || "");
}
function undo() {
  const mine = rows.filter(row => row.by === person() && place.has(row.mark)).sort((a, b) => a.time < b.time ? -1 : 1);
  const left = standing(mine);
  if (!left.length) return;
  const last = left[left.length - 1].mark;
  decide(place.get(last), "undo", "");
  sift(); go(shown.indexOf(place.get(last)));
}

// which photographs are shown, and which one is at hand

let shown = [], at = 0, chosen = 0;
function sift() {
  const kind = $("f-kind").value, least = Number($("f-p").value) / 100, camera = $("f-camera").value;
  const from = $("f-from").value, to = $("f-to").value, text = $("f-text").value.trim().toLowerCase();
  const here = shown[at];
  shown = [];
  items.forEach((item, i) => {
    const now = kind || text ? outcome(item.m) : {};
    const done = settled(now);
    if (kind === "open" && done || kind === "done" && !done || kind === "dispute" && !now.dispute) return;
    if (["sure", "look", "new"].includes(kind) && item.c !== kind) return;
    if (least > 0 && !(item.p >= least) || camera && item.k !== camera) return;
    if (from && !(item.d.slice(0, 10) >= from) || to && !(item.d && item.d.slice(0, 10) <= to)) return;
    if (text && ![item.i, item.g, now.row && now.row.identity, ...item.q.map(one => one.n)].some(
      word => word && word.toLowerCase().includes(text))) return;
    shown.push(i);
  });
  const order = $("f-order").value;
  if (order !== "file") shown.sort((a, b) => order === "least" ? (items[a].p ?? 0) - (items[b].p ?? 0)
    : order === "most" ? (items[b].p ?? 0) - (items[a].p ?? 0)
    : (items[a].g || "~").localeCompare(items[b].g || "~", undefined, {numeric: true}));
  const again = shown.indexOf(here);
  at = again >= 0 ? again : Math.min(at, Math.max(shown.length - 1, 0));
  if (again < 0) chosen = 0;
  drawn.clear(); $("space").replaceChildren(); draw(); count();
}
function count() {
  const decided = items.filter(item => settled(outcome(item.m)));
  $("count").textContent = `${decided.length} of ${items.length} decided, ${shown.length} shown`
    + (unkept ? " - this browser keeps nothing: export before you close the page" : "");
}
const height = () => parseInt(getComputedStyle(document.documentElement).getPropertyValue("--row"), 10);

// rows: only those in sight exist

const drawn = new Map();
function draw() {
  const list = $("list"), high = height();
  $("space").style.height = Math.max(shown.length * high, 1) + "px";
  const first = Math.max(0, Math.floor(list.scrollTop / high) - 2);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / high) + 2);
  for (const [row, made] of drawn) if (row < first || row >= last) { made.remove(); drawn.delete(row); }
  for (let row = first; row < last; row++) if (!drawn.has(row)) { const made = rowOf(row); drawn.set(row, made); $("space").append(made); }
  if (!shown.length && !$("space").firstChild) $("space").append(el("p", {class: "none"}, "No photograph fits these filters."));
}
function redraw(row) { const old = drawn.get(row); if (old) { const made = rowOf(row); old.replaceWith(made); drawn.set(row, made); } }
function picture(source, name, more) { return el("img", {src: source, alt: name, decoding: "async", ...more}); }
function options(item) { // the candidates, and the other photographs of its group
  const own = item.q.map(one => ({name: one.n, p: one.p, pics: one.k.map(k => pics[k]), spots: one.s}));
  if (item.gm.length) own.push({name: item.g, p: item.gp, group: items[item.gm[0]].m,
    pics: item.gm.map(i => ({t: items[i].t, f: items[i].f, n: items[i].i, l: items[i].l}))});
  return own;
}
function flank(item, pic) { return item.l && pic.l ? item.l === pic.l ? "same flank" : "other flank" : ""; }
function said_of(now) {
  if (now.dispute) return "! " + now.dispute.map(row => `${row.by || "somebody"}: ${row.decision === "no" ? "not " : ""}${row.identity}`).join(", ");
  const kin = now.pairs ? [...now.pairs.values()].filter(row => row.decision === "yes").length : 0;
  if (!now.row) return kin ? "✓ of one group" : "";
  return {yes: "✓ ", new: "★ new: ", skip: "… skipped", undo: ""}[now.row.decision] + (now.row.identity || "");
}
function rowOf(row) {
  const i = shown[row], item = items[i], now = outcome(item.m), here = row === at, all = options(item);
  const [sign, word] = KINDS[item.c];
  const cards = all.map((one, k) => {
    const out = one.group ? now.pairs && now.pairs.get(PHOTO + one.group)?.decision === "no" : now.out && now.out.has(one.name);
    const [first, ...rest] = one.pics;
    return el("div", {class: `card${here && k === chosen ? " chosen" : ""}${out ? " out" : ""}`, "aria-label": one.name,
        onclick: () => { go(row); chosen = k; redraw(row); }},
      first ? picture(first.t, one.name, {onclick: event => { event.stopPropagation(); go(row); chosen = k; redraw(row); compare(i, k, 0); }}) : null,
      el("div", {class: "name", title: one.name}, `${out ? "✗ " : ""}${k + 1} ${one.name}`),
      el("div", {class: "soft"}, [one.group ? "same new animal?" : "", percent(one.p), first ? flank(item, first) : ""].filter(Boolean).join(", ")),
      el("div", {class: "more"}, ...rest.map((pic, n) => picture(pic.t, one.name,
        {onclick: event => { event.stopPropagation(); go(row); chosen = k; redraw(row); compare(i, k, n + 1); }}))));
  });
  const act = (label, sign, run) => el("button", {onclick: () => { go(row); run(); }}, label + " ", el("kbd", {}, sign));
  const encounter = item.es > 1 ? `${item.es} photographs together: ${item.en} ${percent(item.ep)}` : "";
  return el("div", {class: "row" + (here ? " here" : ""), role: "group", id: "row" + i, "aria-label": `${item.i}, ${word}`,
      style: `top: ${row * height()}px`, onclick: event => { if (!event.target.closest("button")) go(row); }},
    el("div", {class: "asked"}, picture(item.t, item.b ? `${item.i}, ${item.b}` : item.i, {onclick: () => { go(row); compare(i, chosen, 0); }}),
      item.o ? el("a", {class: "whole", href: item.a, target: "_blank", rel: "noopener", title: "the whole photograph",
        onclick: event => event.stopPropagation()}, picture(item.o, "the whole photograph")) : null,
      el("div", {class: "name", title: item.i}, item.b ? `${item.b}: ${item.i}` : item.i),
      el("div", {class: "soft"}, [item.d, item.k].filter(Boolean).join("  ")), el("div", {class: "soft two", title: encounter}, encounter)),
    el("div", {class: "cards"}, ...cards),
    el("div", {class: "side"}, el("div", {class: "kind " + item.c}, `${sign} ${word}`),
      el("div", {class: "soft"}, item.p === null ? "no probability" : `first name right: ${percent(item.p)}`),
      el("div", {class: "soft"}, item.w === null ? "" : `a new animal: ${percent(item.w)}${item.g ? ", " + item.g : ""}`),
      el("div", {class: "said" + (now.dispute ? " dispute" : "")}, said_of(now)),
      el("div", {class: "acts"}, act("Yes", "y", yes), act("Not this", "n", no), act("New", "w", name), act("Skip", "s", skip),
        item.es > 1 ? act(`Yes, all ${item.es}`, "a", together) : null)));
}
function go(row) {
  if (row < 0 || row >= shown.length) return;
  const before = at;
  at = row;
  if (before !== row) chosen = 0;
  const list = $("list"), high = height();
  if (row * high < list.scrollTop) list.scrollTop = row * high;
  if ((row + 1) * high > list.scrollTop + list.clientHeight) list.scrollTop = (row + 1) * high - list.clientHeight;
  draw(); redraw(before); redraw(row);
}
function onward() { // to the next that nobody has decided
  for (let row = at + 1; row < shown.length; row++) if (!outcome(items[shown[row]].m).row) return go(row);
  go(Math.min(at + 1, shown.length - 1));
}
function after() { redraw(at); count(); }

// what a person says

const current = () => shown[at];
function yes() {
  if (current() === undefined) return;
  const one = options(items[current()])[chosen];
  if (!one) return;
  decide(current(), "yes", one.group ? PHOTO + one.group : one.name);
  after(); onward();
}
function together() { // the same for all photographs of an encounter that nobody has decided, or called another
  if (current() === undefined) return;
  const item = items[current()], one = options(item)[chosen];
  if (!one || one.group) return;
  items.forEach((other, i) => {
    const now = outcome(other.m);
    const free = (!now.row || now.row.decision === "skip") && !(now.out && now.out.has(one.name));
    if (other.e === item.e && (i === current() || free)) decide(i, "yes", one.name);
  });
  for (const row of [...drawn.keys()]) redraw(row);
  count(); onward();
}
function no() {
  if (current() === undefined) return;
  const all = options(items[current()]), one = all[chosen];
  if (!one) return;
  decide(current(), "no", one.group ? PHOTO + one.group : one.name);
  chosen = Math.min(chosen + 1, all.length - 1);
  after();
}
function skip() { if (current() !== undefined) { decide(current(), "skip", ""); after(); onward(); } }
function name() {
  if (current() === undefined) return;
  const item = items[current()];
  const kin = item.g ? items.filter(one => one.g === item.g).map(one => outcome(one.m).row).find(row => row && row.decision === "new") : null;
  const taken = new Set([...data.names, ...rows.map(row => row.identity)]);
  const own = $("by").value.trim().replace(/[^\p{L}\p{N}]+/gu, "-");  // so that two people never give one name to two animals
  const numbered = number => `${data.prefix}${own ? own + "-" : ""}${String(number).padStart(3, "0")}`;
  let number = 1;
  while (taken.has(numbered(number))) number++;
  $("n-name").value = kin ? kin.identity : numbered(number);
  $("n-note").textContent = kin ? "As the others of its group." : "Known names may be chosen as well.";
  $("naming").showModal(); $("n-name").select();
}
$("n-form").addEventListener("submit", event => {
  event.preventDefault();
  const given = $("n-name").value.trim();
  if (!given) return;
  $("naming").close();
  decide(current(), data.names.includes(given) ? "yes" : "new", given);
  after(); onward();
});
$("n-cancel").addEventListener("click", () => $("naming").close());

// two pictures side by side

let pair = null;
function compare(i, k, n) {
  const all = options(items[i]);
  if (!all[k] || !all[k].pics.length) return;
  pair = {i, k, n: (n + all[k].pics.length) % all[k].pics.length};
  const one = all[k], pic = one.pics[pair.n];
  $("c-title").textContent = `${items[i].i}  and  ${one.name}`;
  $("c-note").textContent = [pic.n, percent(one.p), flank(items[i], pic), `${pair.n + 1} of ${one.pics.length}`].filter(Boolean).join(", ");
  $("c-one").src = items[i].f; $("c-two").src = pic.f;
  $("c-one").alt = items[i].i; $("c-two").alt = one.name;
  if (!$("compare").open) $("compare").showModal();
  lines();
}
function within(image) { // where the picture lies in its pane
  const box = image.getBoundingClientRect(), wide = image.naturalWidth, high = image.naturalHeight;
  const scale = Math.min(box.width / wide, box.height / high);
  return {x: box.x + (box.width - wide * scale) / 2, y: box.y + (box.height - high * scale) / 2, w: wide * scale, h: high * scale};
}
function lines() {
  const panes = $("panes"), old = panes.querySelector("svg");
  if (old) old.remove();
  if (!pair || !$("c-spots").checked) return;
  const one = options(items[pair.i])[pair.k], spots = one.spots && pair.n === 0 ? one.spots : null;
  if (!spots || !$("c-one").naturalWidth || !$("c-two").naturalWidth) return;
  const base = panes.getBoundingClientRect(), a = within($("c-one")), b = within($("c-two"));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [x1, y1, x2, y2, strength] of spots) {
    const ends = [a.x + x1 * a.w - base.x, a.y + y1 * a.h - base.y, b.x + x2 * b.w - base.x, b.y + y2 * b.h - base.y];
    for (const [colour, wide] of [["#000", 2.6], ["#ffd400", 1.2]]) {
      const line = document.createElementNS(svg.namespaceURI, "line");
      ["x1", "y1", "x2", "y2"].forEach((name, n) => line.setAttribute(name, ends[n]));
      line.setAttribute("stroke", colour); line.setAttribute("stroke-width", wide); line.setAttribute("opacity", 0.35 + 0.6 * strength);
      svg.append(line);
    }
  }
  panes.append(svg);
}
for (const id of ["c-one", "c-two"]) $(id).addEventListener("load", lines);
addEventListener("resize", () => { lines(); drawn.clear(); $("space").replaceChildren(); draw(); });
$("c-spots").addEventListener("change", lines);
$("c-full").addEventListener("change", () => { $("panes").classList.toggle("full", $("c-full").checked); lines(); });
$("c-back").addEventListener("click", () => compare(pair.i, pair.k, pair.n - 1));
$("c-next").addEventListener("click", () => compare(pair.i, pair.k, pair.n + 1));
$("c-close").addEventListener("click", () => $("compare").close());
$("c-yes").addEventListener("click", () => { $("compare").close(); yes(); });
$("c-no").addEventListener("click", () => { $("compare").close(); no(); });

// files of decisions

const quoted = value => /[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value;
function written() { return "\ufeff" + [COLUMNS, ...rows.map(row => COLUMNS.map(name => row[name]))].map(row => row.map(quoted).join(",")).join("\r\n") + "\r\n"; }
$("export").addEventListener("click", () => {
  const by = $("by").value.trim().replace(/[^\p{L}\p{N}_-]+/gu, "-"), link = el("a", {download: by ? `decisions-${by}.csv` : "decisions.csv"});
  link.href = URL.createObjectURL(new Blob([written()], {type: "text/csv"}));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
function parsed(text, comma) {
  const found = [];
  let row = [], cell = "", inside = false;
  for (let i = 0; i < text.length; i++) {
    const sign = text[i];
    if (inside) { if (sign !== '"') cell += sign; else if (text[i + 1] === '"') { cell += sign; i++; } else inside = false; }
    else if (sign === '"') inside = true;
    else if (sign === comma) { row.push(cell); cell = ""; }
    else if (sign === "\n") { row.push(cell); found.push(row); row = []; cell = ""; }
    else if (sign !== "\r") cell += sign;
  }
  if (cell || row.length) found.push([...row, cell]);
  return found;
}
async function merge(file) {
  const text = (await file.text()).replace(/^\ufeff/, "");
  const [head, ...more] = parsed(text, /^mark;/.test(text) ? ";" : ",");
  if (!head || COLUMNS.some(name => !head.includes(name))) { $("count").textContent = `${file.name}: is no file of decisions.`; return; }
  const there = new Set(rows.map(key));
  const added = more.filter(cells => cells.length === head.length)
    .map(cells => Object.fromEntries(COLUMNS.map(name => [name, cells[head.indexOf(name)]]))).filter(row => row.mark && !there.has(key(row)));
  rows.push(...added); keep(); work(); sift();
  $("count").textContent = `${added.length} decisions of ${file.name} merged; ` + $("count").textContent;
}
$("import").addEventListener("change", async event => { for (const file of event.target.files) await merge(file); event.target.value = ""; });

// keys

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("naming").open) return;
  const typing = /^(INPUT|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox";
  if (typing) { if (event.key === "Escape") { event.target.blur(); $("list").focus(); } return; }
  let keys = {y: yes, n: no, w: name, s: skip, a: together, u: undo, j: () => go(at + 1), k: () => go(at - 1), ArrowDown: () => go(at + 1),
    ArrowUp: () => go(at - 1), c: () => compare(current(), chosen, 0), "/": () => $("f-text").focus()};
  if ($("compare").open) {
    keys = {y: () => $("c-yes").click(), n: () => $("c-no").click(), ArrowLeft: () => $("c-back").click(),
      ArrowRight: () => $("c-next").click(), c: () => $("compare").close()};
  }
  const digit = /^[1-6]$/.test(event.key) ? Number(event.key) - 1 : -1;
  if (digit >= 0 && current() !== undefined && digit < options(items[current()]).length) {
    chosen = digit; redraw(at);
    if ($("compare").open) compare(current(), chosen, 0);
  } else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
});

// the beginning

document.title = data.title; $("title").textContent = data.title;
$("headline").append(...data.headline.map(line => el("p", {}, line)));
$("cautions").append(...data.cautions.map(line => el("p", {class: "caution"}, line)));
for (const camera of [...new Set(items.map(item => item.k).filter(Boolean))].sort()) $("f-camera").append(el("option", {value: camera}, camera));
$("names").append(...data.names.map(one => el("option", {value: one})));
for (const id of ["f-kind", "f-p", "f-camera", "f-from", "f-to", "f-order"]) $(id).addEventListener("change", sift);
$("f-text").addEventListener("input", sift);
addEventListener("beforeunload", event => { if (unkept && rows.length) event.preventDefault(); });
$("by").addEventListener("change", () => {
  try {
    gather();
    for (const row of rows) if (row.by === nobody) row.by = person();
    localStorage.setItem(KEPT, JSON.stringify(rows));
    localStorage.setItem("jaguar_kit by", $("by").value.trim());
  } catch (error) { unkept = true; }
  work(); sift();
});
$("undo").addEventListener("click", undo);
$("list").addEventListener("scroll", draw, {passive: true});
$("filters").open = innerWidth > 720;
restore(); sift(); $("list").focus();
