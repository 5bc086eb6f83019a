// keys

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("naming").open || $("folk").open) return;
  const typing = /^(INPUT|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox" && event.target.type !== "range";
  if (typing) { if (event.key === "Escape" && !$("compare").open) { event.target.blur(); $("list").focus(); } return; }
  if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
  let keys = {y: () => yes(), a: () => yes(true), Y: () => yes(true), n: no, w: name, f: look_up, s: () => skip(), S: () => skip(true),
    b: () => nothing("blank"), B: () => nothing("blank", true), x: () => nothing("unusable"), X: () => nothing("unusable", true), u: undo,
    j: () => go(at + 1), k: () => go(at - 1), ArrowDown: () => go(at + 1), ArrowUp: () => go(at - 1), c: () => current() !== undefined && compare_here(),
    i: () => individuals(), "/": () => { $("filters").open = true; $("f-text").focus(); }};
  if ($("compare").open) {
    keys = {y: () => agree(false), a: () => agree(true), Y: () => agree(true), n: () => $("c-no").click(), f: look_up, ArrowLeft: () => $("c-back").click(),
      ArrowRight: () => $("c-next").click(), c: () => $("compare").close(), "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8),
      l: () => light(1.2), d: () => light(1 / 1.2), 0: () => $("c-reset").click()};
  }
  if (/^[1-6]$/.test(event.key)) {
    const all = current() === undefined ? [] : options(items[current()]), k = Number(event.key) - 1;
    if (k < all.length) {
      chosen = k; redraw(at); tell("");
      if ($("compare").open) compare(current(), all[k], 0);
    } else { // nothing is chosen then, so that no other is confirmed in its place
      if (!$("compare").open) { chosen = -1; redraw(at); }
      tell(`There is no candidate ${event.key} here.`);
    }
  } else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
});

// on paper: all rows that are shown, without buttons

addEventListener("beforeprint", () => { printing = true; draw(); $("cut").textContent = shown.length > MOST_PRINTED ? `The first ${MOST_PRINTED} of ${shown.length} photographs.` : ""; });
addEventListener("afterprint", () => { printing = false; draw(); });

// the beginning

document.title = data.title; $("title").textContent = data.title;
$("headline").append(...data.headline.map(line => el("p", {}, line)));
$("cautions").append(...data.cautions.map(line => el("p", {class: "caution"}, line)));
$("trust").hidden = !data.cautions.length;
for (const camera of [...new Set(items.map(item => item.k).filter(Boolean))].sort()) $("f-camera").append(el("option", {value: camera}, camera));
const weeks = [...new Set(items.map(item => item.wk).filter(Boolean))].sort((a, b) => a - b);
for (const week of weeks) $("f-week").append(el("option", {value: week}, week));
$("f-week").parentElement.hidden = weeks.length < 2;
if (data.weeks) $("f-order").value = "waiting";
for (const id of ["f-kind", "f-p", "f-camera", "f-week", "f-from", "f-to", "f-order"]) $(id).addEventListener("change", sift);
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
