"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const items = data.items, pics = data.pics;
const place = new Map(items.map((item, i) => [item.m, i]));
const KEPT = "jaguar_kit review " + data.run;
const COLUMNS = ["mark", "image", "root", "decision", "identity", "by", "time"]; // that every file of decisions has
const WRITTEN = [...COLUMNS, "of"]; // of: who was renamed, merged or split
const PHOTO = "photo:"; // before the mark of another photograph, or before a word for no animal at all
const NOTHING = {blank: "no animal", unusable: "unusable"};
const ACTS = {rename: "renamed", merge: "merged into", split: "split off as"};

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
const many = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const KINDS = {sure: ["●", "sure"], look: ["◐", "please look"], new: ["★", "probably new"]};
function tell(words) { $("told").textContent = words; }

// decisions: rows that only grow; what they come to is worked out from them

const changed = new Set(); // photographs whose rows are to be drawn again
let rows = [], said = new Map(), acts = [], folk = null, unkept = false;
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
const key = row => JSON.stringify(WRITTEN.map(name => row[name] || ""));
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
const before = (one, other) => one.time < other.time ? -1 : one.time > other.time ? 1 : 0;
const ordered = () => [...rows].sort(before);
function standing(sorted) { // what nobody took back: an undo names the time of what it takes back, else it is the last of its photograph
  const exact = new Set(), last = new Map(), gone = new Set();
  const told = (row, time) => JSON.stringify([row.decision in ACTS ? "" : row.mark, row.by, time]);
  for (const row of sorted) if (row.decision === "undo" && row.identity) exact.add(told(row, row.identity));
  for (const row of sorted) {
    const own = row.mark + "\n" + row.by;
    if (!last.has(own)) last.set(own, []);
    if (row.decision === "undo") { gone.add(row); if (!row.identity) gone.add(last.get(own).pop()); }
    else if (exact.size && exact.has(told(row, row.time))) gone.add(row);
    else if (!(row.decision in ACTS)) last.get(own).push(row);
  }
  return sorted.filter(row => !gone.has(row));
}
const heard = new Map(); // what people said up to now by mark, as the page was made with it
for (const [mark, people] of Object.entries(data.words || {})) {
  const own = {people: new Map(), pairs: new Map()};
  for (const [by, word] of Object.entries(people)) own.people.set(by, {...word, by, time: "", out: new Map(word.out.map(name => [name, ""]))});
  heard.set(mark, own);
}
function opened(mark, own) { // a copy that may be changed
  const copy = {people: new Map([...own.people].map(([by, word]) => [by, {...word, out: new Map(word.out)}])), pairs: new Map()};
  said.set(mark, copy);
  return copy;
}
function work() {
  said = new Map(heard); acts = []; folk = null;
  const left = standing(ordered());
  for (const row of left) if (row.decision in ACTS) {
    const same = acts.find(act => act.time === row.time && act.by === row.by && act.kind === row.decision);
    if (same) same.marks.add(row.mark);
    else acts.push({kind: row.decision, name: row.of, to: row.identity, marks: new Set([row.mark]), by: row.by, time: row.time});
  }
  for (const row of left) {
    if (row.decision in ACTS) continue;
    const there = said.get(row.mark), own = !there || there === heard.get(row.mark) ? opened(row.mark, there || {people: new Map()}) : there;
    if (row.identity.startsWith(PHOTO)) { own.pairs.set(row.identity, row); continue; }
    const word = own.people.get(row.by) || {by: row.by, name: "", decision: "", time: "", out: new Map(), skipped: false};
    own.people.set(row.by, word);
    if (row.decision === "no") {
      if (word.name && called(word.name, row.mark, word.time, row.time) === row.identity) word.name = ""; // thought again
      word.out.set(row.identity, row.time);
    } else {
      word.name = row.decision in NOTHING ? PHOTO + row.decision : row.identity;
      word.decision = row.decision; word.time = row.time; word.skipped = row.decision === "skip";
      word.out.delete(row.identity);
    }
  }
  if (acts.length) for (const [mark, own] of heard) if (said.get(mark) === own) opened(mark, own);
  if (acts.length) for (const [mark, own] of said) for (const word of own.people.values()) {
    word.name = called(word.name, mark, word.time);
    word.out = new Map([...word.out].map(([name, time]) => [called(name, mark, time), time]));
    word.out.delete(word.name); // who were two names once
  }
}
function called(name, mark, time, until) { // who is meant by a name that was said at a time, by what was renamed, merged and split on this page
  for (const act of acts) {
    if (until && act.time > until || act.name !== name) continue;
    if (act.kind !== "split" || mark && act.marks.has(mark) && !(time > act.time)) name = act.to;
  }
  return name;
}
function outcome(mark) { // more must hold a name than speak against it
  const own = said.get(mark);
  if (!own) return {};
  const people = [...own.people.values()], held = new Map();
  for (const word of people) if (word.name) held.set(word.name, [...(held.get(word.name) || []), word]);
  const against = name => people.filter(word => word.out.has(name) || word.name && word.name !== name);
  const names = [...held.keys()], agreed = names.find(name => held.get(name).length > against(name).length);
  const outvoted = names.length === 1 && !agreed && against(names[0]).length > held.get(names[0]).length;
  const dispute = names.length && !agreed && !outvoted ? people.filter(word => word.name || names.some(name => word.out.has(name)))
    .map(word => `${word.by || "somebody"}: ${word.name ? shown_name(word.name) : "not " + names.filter(name => word.out.has(name)).map(shown_name).join(", not ")}`) : null;
  const word = agreed ? held.get(agreed).slice(-1)[0] : outvoted ? null : people.filter(one => one.name).slice(-1)[0];
  const skipped = !names.length && people.some(one => one.skipped);
  return {name: agreed || "", kind: word ? word.decision : skipped ? "skip" : "", by: word ? word.by : "", dispute, skipped,
    out: new Set(people.flatMap(one => [...one.out.keys()])), pairs: own.pairs};
}
const shown_name = name => name.startsWith(PHOTO) ? NOTHING[name.slice(PHOTO.length)] : name;
const settled = now => Boolean(now.name) && !now.dispute;
const sure = item => item.sure && !(outcome(item.m).out || new Set()).has(called(item.sure, item.m, "")) ? called(item.sure, item.m, "") : "";
const touched = now => Boolean(now.kind); // somebody said of it more than whom it does not show
function name_of(i) { // of the animal on a photograph, "" where nobody knows
  const now = outcome(items[i].m);
  return settled(now) ? now.name.startsWith(PHOTO) ? "" : now.name : touched(now) ? "" : sure(items[i]);
}
function stamp() { // the time of what is done now, later than all that its person did before
  const last = rows.filter(row => row.by === person()).reduce((most, row) => row.time > most ? row.time : most, "");
  const now = Date.now(), then = Date.parse(last);
  return new Date(then >= now && then - now < 60000 ? then + 1 : now).toISOString();
}
function decide(list) { // [photograph, decision, identity], of one press, which one undo takes back
  const time = stamp(), by = person();
  for (const [i, decision, identity] of list)
    rows.push({mark: items[i].m, image: items[i].i, root: items[i].r || data.root, decision, identity: identity || "", by, time, of: ""});
  keep(); work();
  for (const [i] of list) changed.add(i);
  const [i, decision, identity] = list[0];
  $("tell").textContent = `${items[i].i}: ${decision} ${identity || ""}` + (list.length > 1 ? `, and ${list.length - 1} more` : "");
  tell("");
}
function act(kind, name, to, marks) {
  const time = stamp(), by = person();
  for (const mark of marks.length ? marks : [""]) rows.push({mark, image: "", root: "", decision: kind, identity: to, by, time, of: name});
  keep(); work();
}
function undo() { // exactly what this person did last, however many photographs it was about
  const mine = standing(ordered()).filter(row => row.by === person() && (place.has(row.mark) || row.decision in ACTS));
  if (!mine.length) { tell("Nothing is left to undo."); return; }
  const last = mine.filter(row => row.time === mine[mine.length - 1].time), time = stamp(), by = person();
  const first = last[0], of_act = first.decision in ACTS;
  for (const mark of of_act ? [""] : new Set(last.map(row => row.mark)))
    rows.push({mark, image: of_act ? "" : items[place.get(mark)].i, root: "", decision: "undo", identity: first.time, by, time, of: ""});
  keep(); work(); sift();
  if (!of_act) go(shown.indexOf(place.get(first.mark)));
  const word = {yes: "is " + first.identity, no: "is not " + first.identity, new: "is " + first.identity, skip: "skipped", ...NOTHING}[first.decision];
  tell(of_act ? `Taken back: ${first.of} ${ACTS[first.decision]} ${first.identity}.`
    : `Taken back: ${first.identity.startsWith(PHOTO) ? "same new animal, " + first.decision : word}, for ${many(new Set(last.map(row => row.mark)).size, "photograph")}.`);
}

// individuals, with their pictures

function flank_order(one, other) {
  return (one.l || "~").localeCompare(other.l || "~") || (one.d || "~").localeCompare(other.d || "~");
}
function animals() { // name: pictures of the catalogue and of photographs that have this name now
  if (folk) return folk;
  folk = new Map();
  const add = (name, pic) => { if (!folk.has(name)) folk.set(name, {pics: [], more: 0}); if (pic) folk.get(name).pics.push(pic); };
  for (const own of data.animals || []) {
    for (const k of own.k) add(called(own.n, pics[k].m, ""), {...pics[k], k});
    add(called(own.n, "", ""));
    folk.get(called(own.n, "", "")).more += own.more || 0;
  }
  for (const name of data.names) add(called(name, "", ""));
  items.forEach((item, i) => { const name = name_of(i); if (name) add(name, {t: item.t, f: item.f, n: item.i, l: item.l, d: item.d, m: item.m}); });
  for (const own of folk.values()) own.pics.sort(flank_order);
  return folk;
}
const known_name = name => data.names.some(one => called(one, "", "") === name);
const verb = name => known_name(name) ? "yes" : "new";

// files of decisions

const quoted = value => /[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value;
function written() { return "\ufeff" + [WRITTEN, ...rows.map(row => WRITTEN.map(name => row[name] || ""))].map(row => row.map(quoted).join(",")).join("\r\n") + "\r\n"; }
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
  const there = new Set([...rows.map(key), ...(data.known || []).map(JSON.stringify)]);
  const known = row => there.has(key(row)) || there.has(JSON.stringify([row.mark, row.decision, row.by, row.time]));
  const added = more.filter(cells => cells.length === head.length)
    .map(cells => Object.fromEntries(WRITTEN.map(name => [name, head.includes(name) ? cells[head.indexOf(name)] : ""])))
    .filter(row => row.decision && (row.mark || row.of || row.decision === "undo") && !known(row));
  rows.push(...added); keep(); work(); sift();
  $("count").textContent = `${added.length} decisions of ${file.name} merged; ` + $("count").textContent;
}
$("import").addEventListener("change", async event => { for (const file of event.target.files) await merge(file); event.target.value = ""; });
