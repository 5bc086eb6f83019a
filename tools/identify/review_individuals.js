// individuals: all their pictures, and what they are called; renamed, merged and split

let who = "", ticked = new Set();
function individuals(name) {
  who = name || who;
  const text = $("i-find").value.trim().toLowerCase();
  const names = [...animals().keys()].filter(one => one.toLowerCase().includes(text)).sort((a, b) => a.localeCompare(b, undefined, {numeric: true}));
  if (!names.includes(who)) who = names[0] || "";
  $("i-list").replaceChildren(...names.map(one => el("li", {role: "option", "aria-selected": String(one === who), tabindex: one === who ? "0" : "-1",
    onclick: () => { ticked.clear(); individuals(one); }}, el("span", {}, one), el("span", {class: "soft"}, ` ${animals().get(one).pics.length + animals().get(one).more}`))));
  const own = animals().get(who) || {pics: [], more: 0}, parts = new Map();
  $("i-name").textContent = who || "Nobody";
  $("i-note").textContent = `${many(own.pics.length, "picture")}${own.more ? `, and ${own.more} more in the catalogue, which this page does not show` : ""}.`;
  for (const pic of own.pics) {
    const told = pic.l ? `flank: ${pic.l}` : "flank not told";
    if (!parts.has(told)) parts.set(told, []);
    parts.get(told).push(el("label", {class: "tick", title: pic.n}, picture(pic.t, pic.n || "", {loading: "lazy"}),
      el("span", {}, pic.m ? el("input", {type: "checkbox", onchange: event => { if (event.target.checked) ticked.add(pic.m); else ticked.delete(pic.m); },
        "aria-label": pic.n, ...(ticked.has(pic.m) ? {checked: ""} : {})}) : null, (pic.d || "no date").slice(0, 10)),
      el("span", {class: "soft"}, (pic.n || "").split("/").pop())));
  }
  $("i-pics").replaceChildren(...[...parts].map(([told, made]) => el("div", {class: "part"}, el("div", {class: "soft"}, told), el("div", {class: "figures"}, ...made))));
  const past = [...(data.acts || []).map(one => `week ${one.week}: ${one.of} ${ACTS[one.kind]} ${one.to}${one.by ? ", by " + one.by : ""}`),
    ...acts.map(one => `${one.time.slice(0, 10)}: ${one.name} ${ACTS[one.kind]} ${one.to}, by ${one.by}`)];
  $("i-past").replaceChildren(...past.map(words => el("li", {}, words)));
  $("i-none").hidden = past.length > 0;
  $("names").replaceChildren(...[...animals().keys()].map(one => el("option", {value: one})));
  if (!$("folk").open) { $("i-said").textContent = ""; $("folk").showModal(); $("i-find").focus(); }
}
function wrong_act(kind, to, marks) { // why an individual can not be renamed, merged or split so
  const there = animals().has(to), given_up = acts.some(one => one.kind !== "split" && one.name === to);
  if (!who) return "Choose an individual first.";
  if (no_name(to)) return no_name(to);
  if (to === who) return `“${to}” is the name itself. Write another one.`;
  if (kind === "rename" && there) return `“${to}” is another animal already. Merge them, if they are one.`;
  if (kind === "merge" && !there) return `Nobody is called “${to}”. Rename it, if this is a new name.`;
  if (given_up && !there) return `“${to}” was given up on this page, so that earlier words still mean another animal. Write another name.`;
  const pictures = animals().get(who).pics.length + animals().get(who).more;
  if (kind === "split" && !marks.length) return "Tick the pictures that show another animal first.";
  if (kind === "split" && marks.length === pictures) return "All of its pictures are ticked. Rename it instead.";
  return "";
}
$("i-form").addEventListener("submit", event => {
  event.preventDefault();
  const kind = $("i-act").value, to = $("i-to").value.trim(), marks = kind === "split" ? [...ticked] : [], wrong = wrong_act(kind, to, marks);
  $("i-said").textContent = wrong;
  if (wrong) return;
  const from = who;
  act(kind, from, to, marks);
  ticked.clear(); $("i-to").value = ""; $("i-find").value = "";
  sift(); individuals(kind === "split" ? from : to);
  $("i-said").textContent = kind === "split" ? `Done: ${many(marks.length, "picture")} of ${from} split off as ${to}.` : `Done: ${from} ${ACTS[kind]} ${to}.`;
});
for (const id of ["i-find", "i-list"]) $(id).addEventListener("keydown", event => {
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key], names = [...$("i-list").querySelectorAll("li > span:first-child")].map(one => one.textContent);
  if (event.key === "Escape") $("folk").close();
  else if (step && names.length) {
    ticked.clear(); individuals(names[(names.indexOf(who) + step + names.length) % names.length]);
    const here = $("i-list").querySelector("[aria-selected=true]");
    here.scrollIntoView({block: "nearest"});
    if (id === "i-list") here.focus();
  } else return;
  event.preventDefault();
});
$("i-find").addEventListener("input", () => { ticked.clear(); individuals(); });
$("i-undo").addEventListener("click", () => { undo(); individuals(); $("i-said").textContent = $("told").textContent; });
$("i-close").addEventListener("click", () => $("folk").close());
$("folk").addEventListener("close", () => { if (!$("folk").open) { $("i-find").value = ""; ticked.clear(); $("list").focus(); } });
$("individuals").addEventListener("click", () => individuals());
