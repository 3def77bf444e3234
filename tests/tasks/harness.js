// Opens every page of JOBS at every width in a frame of its own, looks at it as a reader would, and sends what it saw.
"use strict";

const settle = frame => new Promise(done => frame.contentWindow.requestAnimationFrame(() => frame.contentWindow.requestAnimationFrame(done)));

async function open(address, width) {
  const frame = document.createElement("iframe");
  Object.assign(frame, {src: address, width, height: 844});
  document.body.append(frame);
  await new Promise(done => frame.addEventListener("load", done));
  await settle(frame);
  return frame;
}

function texts(page) {
  const found = [], walk = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const owner = node.parentElement;
    if (!node.data.trim() || !owner.checkVisibility() || owner.closest("script, style, svg title, option")) continue;
    const size = parseFloat(page.defaultView.getComputedStyle(owner).fontSize), drawn = owner.getScreenCTM?.();
    found.push({size: size * (drawn ? Math.hypot(drawn.a, drawn.b) : 1), words: node.data.trim().slice(0, 40)});
  }
  return found;
}

async function look(address, width) {
  const frame = await open(address, width), page = frame.contentDocument, root = page.documentElement;
  for (const fold of page.querySelectorAll("details")) fold.open = true;
  const images = [...page.images];
  for (const image of images) image.loading = "eager";
  await Promise.all(images.map(image => image.decode().catch(() => {})));
  await settle(frame);
  const small = texts(page).sort((a, b) => a.size - b.size)[0];
  const seen = {
    title: page.title, inner: frame.contentWindow.innerWidth, scroll: root.scrollWidth, images: images.length,
    broken: images.filter(image => !image.naturalWidth).length, hidden: images.filter(image => !image.getClientRects().length).length,
    smallest: small.size, smallest_words: small.words,
    marks: [...page.querySelectorAll(".map")].map(map => map.querySelectorAll("g use").length),
  };
  const map = page.querySelector(".map");
  if (map) seen.pointed = point(map);
  if (page.querySelector(".choose")) seen.chosen = choose(page);
  frame.remove();
  return seen;
}

// A tap in the middle of every mark: what the line below the map then says.
function point(map) {
  const picture = map.querySelector("svg"), said = map.querySelector("output");
  return [...map.querySelectorAll("g use")].map(mark => {
    const middle = new DOMPoint(mark.x.baseVal.value, mark.y.baseVal.value).matrixTransform(picture.getScreenCTM());
    picture.dispatchEvent(new PointerEvent("pointerdown", {clientX: middle.x, clientY: middle.y}));
    return {own: mark.querySelector("title").textContent, said: said.textContent, link: said.querySelector("a")?.getAttribute("href") ?? ""};
  });
}

// What the gallery shows for every choice in CHOICES.
function choose(page) {
  const form = page.querySelector(".choose");
  return CHOICES.map(choice => {
    form.reset();
    for (const [name, value] of Object.entries(choice)) form.elements[name].value = value;
    form.dispatchEvent(new Event("input"));
    const shown = [...page.querySelectorAll(".thumb")].filter(thumb => thumb.getClientRects().length);
    return {said: form.querySelector("output").textContent, shown: shown.map(thumb => thumb.id),
            sheets: [...page.querySelectorAll(".sheet")].filter(sheet => sheet.getClientRects().length).length};
  });
}

(async () => {
  const seen = {};
  for (const [address, width] of JOBS) seen[`${address} ${width}`] = await look(address, width);
  await fetch("seen", {method: "POST", body: JSON.stringify(seen)});
})();
