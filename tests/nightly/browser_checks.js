// Everything that is wrong with the page it runs in: a list of sentences. Run by test_browser.py.
(async (width) => {
  const found = [];
  const say = (what, element) => found.push(`${what}: ${describe(element)}`);
  const describe = (e) => {
    const path = [];
    for (let at = e; at && at.tagName && path.length < 4; at = at.parentElement)
      path.unshift(at.tagName.toLowerCase() + (at.id ? "#" + at.id : at.classList.length ? "." + [...at.classList].join(".") : ""));
    return `${path.join(" > ")} "${(e.textContent || "").trim().slice(0, 50)}"`;
  };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });

  // images: there, and described
  for (const image of all("img")) image.loading = "eager";
  await Promise.all(all("img").map((image) => image.decode().catch(() => {})));
  for (const image of all("img")) {
    if (!image.naturalWidth) say(`image ${image.getAttribute("src")} is missing`, image);
    const alt = image.getAttribute("alt");
    const name = (image.getAttribute("src") || "").split("/").pop();
    if (image.closest("[aria-hidden=true], [role=presentation]")) continue;
    if (!alt || !alt.trim()) say("image without alternative text", image);
    else if (alt.includes(name) || alt.startsWith("_images/") || alt.includes("../")) say(`alternative text is a file name, ${alt}`, image);
    else if (image.closest("article") && alt.trim().length < 15) say(`alternative text says little, ${alt}`, image);
  }
  const alts = new Map();
  for (const image of all("article img[alt]"))
    if (alts.has(image.alt) && alts.get(image.alt) !== image.src) say(`two images with one alternative text, ${image.alt}`, image);
    else alts.set(image.alt, image.src);
  for (const canvas of all("canvas, svg, object, video"))
    if (shown(canvas) && !canvas.closest("[aria-hidden=true], mjx-container, [role=img]") && !canvas.closest("[aria-label]"))
      say("drawing without a name", canvas);

  // one name, one place
  const ids = all("article [id], article").map((e) => e.id).filter(Boolean);
  for (const id of new Set(ids.filter((name, place) => ids.indexOf(name) !== place))) found.push(`two elements are called ${id}`);

  // mathematics: set, and no source left over
  for (const math of all(".math")) if (!math.querySelector("mjx-container")) say("mathematics not set", math);
  for (const error of all("mjx-merror, mjx-container [data-mjx-error]")) say("mathematics in error", error);
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (words.nextNode()) {
    const node = words.currentNode, parent = node.parentElement;
    if (!node.data.trim() || parent.closest("script, style, noscript, template, mjx-container, select")) continue;
    texts.push(node);
    if (parent.closest("pre, code, .highlight, textarea")) continue;
    if (/\\\(|\\\[|\\begin\{|\\mathcal|\$[^$\s][^$]*\$/.test(node.data)) say("mathematics left as source", parent);
  }

  // nothing is wider than the page, and what scrolls by itself can be reached by keyboard
  const scrolls = (e) => /auto|scroll/.test(getComputedStyle(e).overflowX);
  const inside = (e) => { for (let at = e.parentElement; at; at = at.parentElement) if (scrolls(at) || getComputedStyle(at).overflowX === "hidden") return true; return false; };
  if (document.scrollingElement.scrollWidth > width + 1) {
    found.push(`the page is ${document.scrollingElement.scrollWidth} wide`);
    for (const e of all("body *")) if (shown(e) && e.getBoundingClientRect().right > width + 1 && !inside(e)) say("wider than the page", e);
  }
  for (const e of all("article *")) {
    const room = e.closest("article").getBoundingClientRect();
    const box = e.getBoundingClientRect();
    if (shown(e) && box.width && (box.right > room.right + 2 || box.left < room.left - 2) && !inside(e) && !e.closest("mjx-assistive-mml, .headerlink, aside.margin"))
      say(`sticks out of the text by ${Math.round(Math.max(box.right - room.right, room.left - box.left))} pixels`, e);
    if (scrolls(e) && e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0 && !e.querySelector("a[href], button, input, select"))
      say("scrolls, but not by keyboard", e);
  }

  // contrast of WCAG AA
  const channels = (text) => { const m = text.match(/[\d.]+/g).map(Number); if (text.startsWith("color(")) return [m[0] * 255, m[1] * 255, m[2] * 255, m[3] ?? 1]; return [m[0], m[1], m[2], m[3] ?? 1]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  // what is behind an element (null: a picture) and how opaque it is, from its parent's
  const known = new Map();
  const ground = (e) => {
    if (!e) return { under: [255, 255, 255, 1], opacity: 1 };
    if (!known.has(e)) {
      const style = getComputedStyle(e), behind = ground(e.parentElement), colour = channels(style.backgroundColor);
      const plain = style.backgroundImage === "none" && (behind.under || colour[3] === 1);
      known.set(e, { under: plain ? over(colour, behind.under || colour) : null, opacity: behind.opacity * parseFloat(style.opacity) });
    }
    return known.get(e);
  };
  const told = new Set();
  for (const node of texts) {
    const e = node.parentElement;
    if (!shown(e) || e.closest("[disabled], [aria-disabled=true], svg")) continue;
    const style = getComputedStyle(e), { under, opacity } = ground(e);
    if (!under || parseFloat(style.fontSize) < 1) continue;
    const colour = channels(style.color);
    colour[3] *= opacity;
    const [a, b] = [light(over(colour, under)), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const key = `${style.color} on ${under.map(Math.round)}`;
    if (ratio < needed && !told.has(key)) { told.add(key); say(`contrast ${ratio.toFixed(2)} of ${needed} (${key})`, e); }
  }

  // what can be pressed has a name
  for (const e of all("button, a[href], input, select, summary")) {
    if (!shown(e)) continue;
    const name = e.getAttribute("aria-label") || e.title || e.textContent.trim() || e.placeholder || e.value || (e.labels && e.labels.length) || [...e.querySelectorAll("img[alt]")].map((i) => i.alt).join("") || e.getAttribute("aria-labelledby");
    if (!name) say("nothing says what this is for", e);
  }
  return found;
})
