// two pictures side by side: a photograph, and an animal, which may be any of the catalogue

let pair = null, looks = [{}, {}], found = [], pointed = -1;
const panes = () => [$("c-one"), $("c-two")];
function compare_here() {
  const all = options(items[current()]);
  compare(current(), all[chosen] || all[0] || null, 0);
}
function whole_animal(name, first) { // all its pictures, those that are most alike before the others
  const there = new Set((first || []).map(pic => pic.k)), own = animals().get(name);
  const rest = own ? own.pics.filter(pic => !(pic.k !== undefined && there.has(pic.k)) && pic.m !== items[pair ? pair.i : current()].m) : [];
  return [...(first || []).map(pic => ({...pic, alike: true})), ...rest];
}
function compare(i, one, n) {
  const other = !pair || pair.i !== i || !one || !pair.one || pair.one.name !== one.name;
  pair = {i, one, n: 0, pics: []};
  if (one) pair.pics = one.group ? one.pics : whole_animal(one.name, one.pics);
  const count = pair.pics.length;
  pair.n = count ? (n + count) % count : 0;
  const item = items[i], pic = pair.pics[pair.n];
  $("c-title").textContent = one ? `${item.i} and ${one.name}` : item.i;
  $("c-note").textContent = pic ? [pic.n, pic.d, percent(one.p), flank(item, pic), `${pair.n + 1} of ${count}`].filter(Boolean).join(", ")
    : one ? `There is no picture of ${one.name} here.` : "Find an animal to compare it with.";
  show($("c-one"), item, item.i);
  show($("c-two"), pic, one ? one.name : "");
  $("c-all").hidden = item.es < 2;
  $("c-all").firstChild.textContent = `Yes, all ${item.es} `;
  $("c-hint").textContent = item.es < 2 ? "Enter in the search: yes, this one." : `Enter in the search: yes, for all ${item.es} photographs of the encounter. Shift and Enter: for this photograph alone.`;
  if (!$("compare").open) { looks = [{z: 1, x: 0.5, y: 0.5, b: 1}, {z: 1, x: 0.5, y: 0.5, b: 1}]; $("c-find").value = ""; list_found(); $("compare").showModal(); $("panes").focus(); }
  if (other) strip();
  for (const [k, made] of [...$("c-strip").querySelectorAll("img")].entries()) made.classList.toggle("chosen", k === pair.n);
  look();
}
function show(image, pic, name) {
  image.hidden = !pic || !pic.f;
  image.alt = name;
  image.dataset.small = pic ? pic.t : "";
  if (pic && image.getAttribute("src") !== pic.f) image.src = pic.f;
  if (!pic) image.removeAttribute("src");
  lost();
}
function lost() { // originals that a mailed folder does not have
  const small = panes().filter(image => !image.hidden && image.getAttribute("src") && image.dataset.small && image.classList.contains("small")).length;
  $("c-lost").textContent = small ? "The original is not beside this page; this is its thumbnail." : "";
}
document.addEventListener("error", event => { // an original that is not here is shown by its thumbnail
  const image = event.target, small = image.dataset && image.dataset.small;
  if (image.tagName !== "IMG" || !image.getAttribute("src")) return;
  if (small && image.getAttribute("src") !== small) { image.src = small; image.classList.add("small"); }
  else { image.classList.add("lost"); tell("Some pictures can not be shown: keep the folder “pictures” beside this page."); }
  lost();
}, true);
for (const id of ["c-one", "c-two"]) $(id).addEventListener("load", () => {
  $(id).classList.remove("lost");
  $(id).classList.toggle("small", Boolean($(id).dataset.small) && $(id).getAttribute("src") === $(id).dataset.small && $(id).dataset.small !== wanted(id));
  lost(); lines();
});
function wanted(id) { const pic = pair && (id === "c-one" ? items[pair.i] : pair.pics[pair.n]); return pic ? pic.f : ""; }
function strip() { // all pictures of the animal, by flank and date
  const box = $("c-strip"), parts = new Map();
  pair.pics.forEach((pic, k) => {
    const told = pair.one.group ? "same new animal?" : pic.alike ? "most alike" : pic.l ? `flank: ${pic.l}` : "flank not told";
    if (!parts.has(told)) parts.set(told, []);
    parts.get(told).push(el("figure", {}, picture(pic.t, pic.n || "", {loading: "lazy", title: pic.n, onclick: () => compare(pair.i, pair.one, k)}),
      el("figcaption", {}, (pic.d || "no date").slice(0, 10))));
  });
  const own = pair.one && !pair.one.group && animals().get(pair.one.name);
  box.replaceChildren(...[...parts].map(([told, made]) => el("div", {class: "part"}, el("div", {class: "soft"}, told), el("div", {class: "figures"}, ...made))),
    ...(own && own.more ? [el("div", {class: "soft"}, `and ${own.more} more in the catalogue`)] : []));
}

// zoom and brightness, of both pictures together unless they are parted

function look() {
  panes().forEach((image, k) => {
    const {z = 1, x = 0.5, y = 0.5, b = 1} = looks[k];
    image.style.transform = `scale(${z}) translate(${(0.5 - x) * 100}%, ${(0.5 - y) * 100}%)`;
    image.style.filter = b === 1 ? "" : `brightness(${b})`;
  });
  $("c-zoom").value = looks[held].z || 1; $("c-light").value = looks[held].b || 1;
  lines();
}
let held = 0; // the picture that was pointed at last
function change(told) {
  for (const k of $("c-linked").checked ? [0, 1] : [held]) {
    const own = {z: 1, x: 0.5, y: 0.5, b: 1, ...looks[k], ...told(looks[k])};
    own.z = Math.min(12, Math.max(1, own.z)); own.b = Math.min(4, Math.max(0.3, own.b));
    const most = 0.5 * (1 - 1 / own.z);
    own.x = Math.min(0.5 + most, Math.max(0.5 - most, own.x)); own.y = Math.min(0.5 + most, Math.max(0.5 - most, own.y));
    looks[k] = own;
  }
  look();
}
const zoom = by => change(own => ({z: (own.z || 1) * by}));
const light = by => change(own => ({b: (own.b || 1) * by}));
$("c-zoom").addEventListener("input", () => change(() => ({z: Number($("c-zoom").value)})));
$("c-light").addEventListener("input", () => change(() => ({b: Number($("c-light").value)})));
$("c-reset").addEventListener("click", () => { looks = [{}, {}]; change(() => ({z: 1, x: 0.5, y: 0.5, b: 1})); });
for (const [k, image] of panes().entries()) {
  const pane = image.parentElement;
  let from = null;
  pane.addEventListener("wheel", event => { event.preventDefault(); held = k; zoom(event.deltaY < 0 ? 1.25 : 0.8); }, {passive: false});
  pane.addEventListener("pointerdown", event => { held = k; from = {x: event.clientX, y: event.clientY}; pane.setPointerCapture(event.pointerId); event.preventDefault(); look(); });
  pane.addEventListener("pointermove", event => {
    if (!from) return;
    const dx = (event.clientX - from.x) / pane.clientWidth, dy = (event.clientY - from.y) / pane.clientHeight;
    from = {x: event.clientX, y: event.clientY};
    change(own => ({x: (own.x ?? 0.5) - dx / (own.z || 1), y: (own.y ?? 0.5) - dy / (own.z || 1)}));
  });
  for (const kind of ["pointerup", "pointercancel"]) pane.addEventListener(kind, () => { from = null; });
  pane.addEventListener("dblclick", () => { held = k; zoom((looks[k].z || 1) > 1 ? 0.01 : 3); });
}
function within(image) { // where the picture lies in its pane
  const box = image.getBoundingClientRect(), wide = image.naturalWidth, high = image.naturalHeight;
  const scale = Math.min(box.width / wide, box.height / high);
  return {x: box.x + (box.width - wide * scale) / 2, y: box.y + (box.height - high * scale) / 2, w: wide * scale, h: high * scale};
}
function lines() {
  const box = $("panes"), old = box.querySelector("svg");
  if (old) old.remove();
  if (!pair || !pair.one || !$("c-spots").checked) return;
  const spots = pair.one.spots && pair.n === 0 ? pair.one.spots : null;
  if (!spots || !$("c-one").naturalWidth || !$("c-two").naturalWidth) return;
  const base = box.getBoundingClientRect(), a = within($("c-one")), b = within($("c-two"));
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
  box.append(svg);
}

// any animal, by a part of its name

function recent() { // names that this person gave last
  return [...new Set(ordered().filter(row => row.by === person() && (row.decision === "yes" || row.decision === "new") && !row.identity.startsWith(PHOTO))
    .reverse().map(row => called(row.identity, row.mark, row.time)))].slice(0, 5);
}
function matching(text, names, most) { // those that begin with a text, that have a word that does, and that hold it
  const wanted = text.trim().toLowerCase(), rank = name => {
    const low = name.toLowerCase();
    return low.startsWith(wanted) ? 0 : low.split(/[^\p{L}\p{N}]+/u).some(word => word.startsWith(wanted)) ? 1 : low.includes(wanted) ? 2 : 3;
  };
  return names.map(name => [rank(name), name]).filter(([level]) => level < 3)
    .sort((a, b) => a[0] - b[0] || a[1].length - b[1].length || a[1].localeCompare(b[1], undefined, {numeric: true})).slice(0, most).map(([, name]) => name);
}
function list_found() {
  const text = $("c-find").value, all = [...animals().keys()], late = recent().filter(name => animals().has(name));
  found = text.trim() ? matching(text, all, 8) : [...late, ...all.filter(name => !late.includes(name)).sort((a, b) => a.localeCompare(b, undefined, {numeric: true}))].slice(0, 8);
  pointed = text.trim() && found.length ? 0 : -1;
  mark_found();
  if (pointed === 0) compare_with(found[0]);
}
function mark_found() {
  const active = document.activeElement === $("c-find");
  $("c-found").hidden = !active;
  $("c-find").setAttribute("aria-expanded", String(active));
  $("c-find").setAttribute("aria-activedescendant", pointed >= 0 ? "c-found" + pointed : "");
  $("c-found").replaceChildren(...found.map((name, k) => el("li", {id: "c-found" + k, role: "option", "aria-selected": String(k === pointed),
    onpointerdown: event => { event.preventDefault(); pointed = k; compare_with(name); mark_found(); }},
    picture((animals().get(name).pics[0] || {}).t, ""), el("span", {}, name), el("span", {class: "soft"}, many(animals().get(name).pics.length + animals().get(name).more, "picture")))),
    ...(found.length ? [] : [el("li", {class: "soft"}, "No animal is called so. Close this, and press w to name a new one.")]));
}
function compare_with(name) { // beside the photograph that is open
  const card = options(items[pair.i]).find(one => one.name === name && !one.group);
  compare(pair.i, card || {name, p: null, pics: []}, 0);
}
function look_up() {
  if (current() === undefined) return;
  if (!$("compare").open) compare_here();
  $("c-find").focus(); $("c-find").select(); list_found();
}
function agree(whole) { // with the animal that is shown
  if (!pair || !pair.one) return;
  const one = pair.one;
  $("compare").close();
  answer(one, whole); after(); onward();
}
$("c-find").addEventListener("input", list_found);
$("c-find").addEventListener("focus", mark_found);
$("c-find").addEventListener("blur", mark_found);
$("c-find").addEventListener("keydown", event => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (found.length) pointed = (pointed + (event.key === "ArrowDown" ? 1 : pointed < 0 ? 0 : -1) + found.length) % found.length;
    if (pointed >= 0) compare_with(found[pointed]);
    mark_found();
  } else if (event.key === "Enter") {
    if (pointed >= 0) agree(!event.shiftKey);
    else $("c-hint").textContent = found.length ? "Choose an animal first, by a part of its name or by the arrows." : "No animal is called so.";
  } else if (event.key === "Escape") $("compare").close();
  else return;
  event.preventDefault();
});
addEventListener("resize", () => { lines(); drawn.clear(); $("space").replaceChildren(); draw(); });
$("c-spots").addEventListener("change", lines);
$("c-back").addEventListener("click", () => compare(pair.i, pair.one, pair.n - 1));
$("c-next").addEventListener("click", () => compare(pair.i, pair.one, pair.n + 1));
$("c-close").addEventListener("click", () => $("compare").close());
$("compare").addEventListener("close", () => { if (!$("compare").open) { pair = null; $("list").focus(); } }); // it may be open again by now
$("c-yes").addEventListener("click", () => agree(false));
$("c-all").addEventListener("click", () => agree(true));
$("c-no").addEventListener("click", () => {
  const one = pair && pair.one, i = pair && pair.i;
  if (!one) return;
  $("compare").close();
  const k = options(items[i]).findIndex(card => card.name === one.name);
  if (k >= 0) { chosen = k; no(); } else { decide([[i, "no", one.name]]); after(true); }
});
