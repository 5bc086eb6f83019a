// which photographs are shown, and which one is at hand

let shown = [], at = 0, chosen = 0;
const WAITING = ["dispute", "skip", "open", "done"]; // the order of what is asked again
function standing_of(i, now) { // how far a photograph is settled
  if (now.dispute) return "dispute";
  if (now.skipped) return "skip";
  return settled(now) || !touched(now) && sure(items[i]) ? "done" : "open";
}
function fits(kind, i, now) {
  const how = standing_of(i, now);
  if (kind === "open") return how !== "done";
  if (kind === "nothing") return settled(now) && now.name.startsWith(PHOTO);
  return ["sure", "look", "new"].includes(kind) ? items[i].c === kind : how === kind;
}
function sift() {
  const kind = $("f-kind").value, least = Number($("f-p").value) / 100, camera = $("f-camera").value, week = $("f-week").value;
  const from = $("f-from").value, to = $("f-to").value, text = $("f-text").value.trim().toLowerCase(), order = $("f-order").value;
  const here = shown[at];
  shown = [];
  items.forEach((item, i) => {
    const now = kind || text ? outcome(item.m) : {};
    if (kind && !fits(kind, i, now)) return;
    if (least > 0 && !(item.p >= least) || camera && item.k !== camera || week && String(item.wk) !== week) return;
    if (from && !(item.d.slice(0, 10) >= from) || to && !(item.d && item.d.slice(0, 10) <= to)) return;
    if (text && ![item.i, item.g, now.name, item.sure, ...item.q.map(one => called(one.n, "", ""))].some(
      word => word && word.toLowerCase().includes(text))) return;
    shown.push(i);
  });
  const rank = order === "waiting" ? new Map(shown.map(i => [i, WAITING.indexOf(standing_of(i, outcome(items[i].m)))])) : null;
  if (rank) shown.sort((a, b) => rank.get(a) - rank.get(b));
  else if (order !== "file") shown.sort((a, b) => order === "least" ? (items[a].p ?? 0) - (items[b].p ?? 0)
    : order === "most" ? (items[b].p ?? 0) - (items[a].p ?? 0)
    : (items[a].g || "~").localeCompare(items[b].g || "~", undefined, {numeric: true}));
  const again = shown.indexOf(here);
  at = again >= 0 ? again : Math.min(at, Math.max(shown.length - 1, 0));
  if (again < 0) chosen = 0;
  drawn.clear(); $("space").replaceChildren(); draw(); count();
}
function count() {
  let decided = 0, certain = 0;
  items.forEach((item, i) => { const now = outcome(item.m); if (settled(now)) decided++; else if (standing_of(i, now) === "done") certain++; });
  $("count").textContent = `${decided} of ${items.length} decided, ${certain ? `${certain} more by sure answers, ` : ""}${shown.length} shown`
    + (unkept ? " - this browser keeps nothing: export before you close the page" : "");
}
const height = () => parseInt(getComputedStyle(document.documentElement).getPropertyValue("--row"), 10);

// rows: only those in sight exist

const drawn = new Map();
let printing = false;
const MOST_PRINTED = 500;
function draw() {
  const list = $("list"), high = height();
  $("space").style.height = Math.max(shown.length * high, 1) + "px";
  const first = printing ? 0 : Math.max(0, Math.floor(list.scrollTop / high) - 2);
  const last = printing ? Math.min(shown.length, MOST_PRINTED) : Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / high) + 2);
  for (const [row, made] of drawn) if (row < first || row >= last) { made.remove(); drawn.delete(row); }
  for (let row = first; row < last; row++) if (!drawn.has(row)) { const made = rowOf(row); drawn.set(row, made); $("space").append(made); }
  if (!shown.length && !$("space").firstChild) $("space").append(el("p", {class: "none"}, "No photograph fits these filters."));
}
function redraw(row) { const old = drawn.get(row); if (old) { const made = rowOf(row); old.replaceWith(made); drawn.set(row, made); } }
function redraw_changed() {
  for (const row of [...drawn.keys()]) if (changed.has(shown[row]) && row !== at) redraw(row);
  changed.clear();
}
function picture(source, name, more) {
  return source ? el("img", {src: source, alt: name, decoding: "async", ...more}) : el("div", {class: "gone"}, "The picture is not here.");
}
function options(item) { // the candidates, and the other photographs of its group
  const own = item.q.map(one => ({name: called(one.n, "", ""), p: one.p, pics: one.k.map(k => ({...pics[k], k})), spots: one.s}));
  if (item.gm.length) own.push({name: item.g, p: item.gp, group: item.gm,
    pics: item.gm.map(i => ({t: items[i].t, f: items[i].f, n: items[i].i, l: items[i].l, d: items[i].d}))});
  return own;
}
function flank(item, pic) { return item.l && pic.l ? item.l === pic.l ? "same flank" : "other flank" : ""; }
const links_of = (now, group, word) => group.some(i => now.pairs && now.pairs.get(PHOTO + items[i].m)?.decision === word);
function said_of(i, now) {
  if (now.dispute) return "! " + now.dispute.join(", ");
  if (!now.kind) {
    if (sure(items[i])) return "● " + sure(items[i]);
    return now.pairs && [...now.pairs.values()].some(row => row.decision === "yes") ? "✓ of one group" : "";
  }
  return now.kind in NOTHING ? "∅ " + NOTHING[now.kind] : {yes: "✓ ", new: "★ new: ", skip: "… skipped"}[now.kind] + now.name;
}
function cardOf(row, one, k, now) {
  const i = shown[row], out = one.group ? links_of(now, one.group, "no") : now.out && now.out.has(one.name) && now.name !== one.name, [first, ...rest] = one.pics;
  const open = n => event => { event.stopPropagation(); go(row); chosen = k; redraw(row); compare(i, one, n); };
  return el("div", {class: `card${row === at && k === chosen ? " chosen" : ""}${out ? " out" : ""}`, "aria-label": one.name,
      onclick: () => { go(row); chosen = k; redraw(row); }},
    first ? picture(first.t, one.name, {onclick: open(0)}) : null,
    el("div", {class: "name", title: one.name}, `${out ? "✗ " : ""}${k + 1} ${one.name}`),
    el("div", {class: "soft"}, [one.group ? "same new animal?" : "", percent(one.p), first ? flank(items[i], first) : ""].filter(Boolean).join(", ")),
    el("div", {class: "more"}, ...rest.map((pic, n) => picture(pic.t, one.name, {onclick: open(n + 1)}))));
}
function rowOf(row) {
  const i = shown[row], item = items[i], now = outcome(item.m), here = row === at;
  const [sign, word] = KINDS[item.c] || ["○", "named"];
  const act = (label, sign, run) => el("button", {onclick: () => { go(row); run(); }}, label + " ", el("kbd", {}, sign));
  const encounter = item.es > 1 ? `${item.es} together${item.en ? `: ${item.en} ${percent(item.ep)}` : ""}` : "";
  const kin = item.es > 1 ? encounters().get(item.e).filter(other => other !== i).slice(0, 4) : [];
  return el("div", {class: "row" + (here ? " here" : ""), role: "group", id: "row" + i, "aria-label": `${item.i}, ${word}`,
      style: `top: ${row * height()}px`, onclick: event => { if (!event.target.closest("button")) go(row); }},
    el("div", {class: "asked"}, picture(item.t, item.b ? `${item.i}, ${item.b}` : item.i, {onclick: () => { go(row); compare_here(); }}),
      item.o ? el("a", {class: "whole", href: item.a, target: "_blank", rel: "noopener", title: "the whole photograph",
        onclick: event => event.stopPropagation()}, picture(item.o, "the whole photograph")) : null,
      el("div", {class: "name", title: item.i}, item.b ? `${item.b}: ${item.i}` : item.i),
      el("div", {class: "soft"}, [item.wk ? `week ${item.wk}` : "", item.d, item.k].filter(Boolean).join("  ")),
      encounter ? el("div", {class: "soft", title: encounter}, encounter) : null,
      kin.length ? el("div", {class: "kin"}, ...kin.map(other => picture(items[other].t, items[other].i, {title: items[other].i}))) : null),
    el("div", {class: "cards"}, ...options(item).map((one, k) => cardOf(row, one, k, now))),
    el("div", {class: "side"}, el("div", {class: "kind " + item.c}, `${sign} ${word}`),
      el("div", {class: "soft"}, item.p === null ? "no probability" : `first name right: ${percent(item.p)}`),
      el("div", {class: "soft"}, item.w === null ? "" : `a new animal: ${percent(item.w)}${item.g ? ", " + item.g : ""}`),
      el("div", {class: "said" + (now.dispute ? " dispute" : ""), title: said_of(i, now)}, said_of(i, now)),
      el("div", {class: "acts"}, act("Yes", "y", yes), item.es > 1 ? act(`Yes, all ${item.es}`, "a", () => yes(true)) : null, act("Not this", "n", no),
        act("Find", "f", look_up), act("New", "w", name), act("Skip", "s", () => skip()), act("No animal", "b", () => nothing("blank")),
        act("Unusable", "x", () => nothing("unusable")))));
}
let met = null;
function encounters() { // photographs by their encounter
  if (met) return met;
  met = new Map();
  items.forEach((item, i) => { if (!met.has(item.e)) met.set(item.e, []); met.get(item.e).push(i); });
  return met;
}
function go(row) {
  if (row < 0 || row >= shown.length) return;
  const from = at;
  at = row;
  if (from !== row) chosen = 0;
  const list = $("list"), high = height();
  if (row * high < list.scrollTop) list.scrollTop = row * high;
  if ((row + 1) * high > list.scrollTop + list.clientHeight) list.scrollTop = (row + 1) * high - list.clientHeight;
  const fresh = !drawn.has(row);
  draw(); redraw(from);
  if (row !== from && !fresh) redraw(row);
}
function spoken(mark) { // this person has said on this page whom a photograph shows, or that it can not be told
  const word = said.get(mark) && said.get(mark).people.get(person());
  return Boolean(word && word.time && (word.name || word.skipped));
}
function onward() { // to the next that is not settled, and that this person was not asked for yet
  for (let row = at + 1; row < shown.length; row++) {
    const i = shown[row];
    if (standing_of(i, outcome(items[i].m)) !== "done" && !spoken(items[i].m)) return go(row);
  }
  go(Math.min(at + 1, shown.length - 1));
}
function after(stays) { if (stays) redraw(at); redraw_changed(); count(); }

// what a person says; whole: of all photographs of the encounter that nobody has decided yet

const current = () => shown[at];
function scope(whole, name) {
  const i = current();
  if (!whole || items[i].es < 2) return [i];
  return [i, ...encounters().get(items[i].e).filter(other => {
    const now = outcome(items[other].m);
    return other !== i && (!touched(now) || now.skipped) && !(name && now.out && now.out.has(name));
  })];
}
function kin_of(start) { // the photographs that were confirmed to show the same new animal, with those that they start from
  const next = new Map(), join = (a, b) => { if (!next.has(a)) next.set(a, []); next.get(a).push(b); };
  for (const [mark, own] of said) for (const row of own.pairs.values()) if (row.decision === "yes") {
    const other = row.identity.slice(PHOTO.length);
    join(mark, other); join(other, mark);
  }
  const found = new Set(start.map(i => items[i].m));
  for (const mark of found) for (const other of next.get(mark) || []) found.add(other);
  return [...found].filter(mark => place.has(mark)).map(mark => place.get(mark));
}
function is(given, list) { // photographs show the animal of this name, and so do those of their group that have no other
  const all = new Set([...list, ...kin_of(list).filter(i => !touched(outcome(items[i].m)) || outcome(items[i].m).skipped)]);
  decide([...all].map(i => [i, verb(given), given]));
}
function answer(one, whole) {
  if (!one.group) return is(one.name, scope(whole, one.name));
  const list = scope(whole), named = kin_of(one.group).map(name_of).find(Boolean);
  if (named) return is(named, list);
  const own = list.map(name_of).find(Boolean); // a photograph that has a name gives it to those that it is confirmed with
  const linked = own ? kin_of([...list, ...one.group]).filter(i => !touched(outcome(items[i].m))) : [];
  decide([...list.flatMap(i => one.group.filter(k => k !== i).map(k => [i, "yes", PHOTO + items[k].m])), ...linked.map(i => [i, verb(own), own])]);
}
function card() {
  const all = current() === undefined ? [] : options(items[current()]), one = all[chosen];
  if (all.length && !one) tell(`Choose a card first: 1 to ${all.length}.`);
  return one;
}
function yes(whole) {
  const one = card();
  if (!one) return;
  answer(one, whole); after(); onward();
}
function no() {
  const one = card();
  if (!one) return;
  const i = current();
  decide(one.group ? one.group.map(k => [i, "no", PHOTO + items[k].m]) : [[i, "no", one.name]]);
  chosen = Math.min(chosen + 1, options(items[i]).length - 1);
  after(true);
}
function skip(whole) { if (current() !== undefined) { decide(scope(whole).map(i => [i, "skip", ""])); after(); onward(); } }
function nothing(word, whole) { if (current() !== undefined) { decide(scope(whole).map(i => [i, word, ""])); after(); onward(); } }
function numbered() { // the next free name, with that of its person, so that two people never give one name to two animals
  const taken = new Set([...data.names, ...standing(rows).flatMap(row => [row.identity, row.of]), ...animals().keys()]);
  const own = $("by").value.trim().replace(/[^\p{L}\p{N}]+/gu, "-");
  for (let number = 1; ; number++) {
    const name = `${data.prefix}${own ? own + "-" : ""}${String(number).padStart(3, "0")}`;
    if (!taken.has(name)) return name;
  }
}
function name() {
  if (current() === undefined) return;
  const item = items[current()], group = kin_of([current()]).filter(i => i !== current());
  const others = [...group, ...(item.g ? items.map((one, i) => i).filter(i => items[i].g === item.g) : [])];
  const kin = others.map(i => outcome(items[i].m)).find(now => now.kind === "new");
  const free = group.filter(i => !touched(outcome(items[i].m)));
  $("n-name").value = kin ? kin.name : numbered();
  $("n-note").textContent = [kin ? "This is the name of the others of its group." : "A known name may be chosen as well.",
    free.length ? `${many(free.length, "more photograph")} that ${free.length === 1 ? "was" : "were"} confirmed to show the same animal will have it too.` : ""].join(" ");
  $("n-single").hidden = item.es < 2;
  $("n-keep").firstChild.textContent = item.es < 2 ? "Keep " : `Keep for all ${item.es} of the encounter `;
  $("names").replaceChildren(...[...animals().keys()].map(one => el("option", {value: one})));
  $("naming").showModal(); $("n-name").select();
}
function named(whole) {
  const given = $("n-name").value.trim(), wrong = no_name(given);
  if (wrong) { $("n-note").textContent = wrong; return; }
  $("naming").close();
  is(given, scope(whole, given)); after(); onward();
}
function no_name(given) { // why an individual can not be called so
  if (!given) return "Write a name first.";
  if (given.toLowerCase().startsWith(PHOTO) || given.toLowerCase() === "new_individual") return `“${given}” means something else here. Write another name.`;
  return "";
}
$("n-form").addEventListener("submit", event => { event.preventDefault(); named(true); });
$("n-name").addEventListener("keydown", event => { if (event.key === "Enter" && event.shiftKey) { event.preventDefault(); named(false); } });
$("n-single").addEventListener("click", () => named(false));
$("n-cancel").addEventListener("click", () => $("naming").close());
