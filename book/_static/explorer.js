// The explorer page: a scene, a method and a threshold give a mask and its score. No library, no server.
document.addEventListener("DOMContentLoaded", async () => {
  const root = document.getElementById("explorer"), source = document.getElementById("explorer-data");
  if (!root || !source) return;
  const data = JSON.parse(source.textContent);
  const make = (tag, properties = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...inside);
    return element;
  };

  // pixels of an image that the page carries
  const read = async (address) => {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  };
  const first = async (address) => { const p = await read(address); return p.data.filter((_, i) => i % 4 === 0); };
  const loaded = new Map();
  const load = async (scene) => {
    if (!loaded.has(scene)) {
      const maps = {};
      for (const [name, address] of Object.entries(scene.maps)) maps[name] = await first(address);
      loaded.set(scene, { picture: await read(scene.picture), truth: await first(scene.truth), maps });
    }
    return loaded.get(scene);
  };

  // class of each pixel: the highest map where it exceeds the threshold, else background
  const cut = (maps, present, pixels, threshold) => {
    const mask = new Uint8Array(pixels);
    for (let i = 0; i < pixels; i++) {
      let best = -1;
      present.forEach((k, p) => { const value = maps[p * pixels + i]; if (value > best && value / 255 > threshold) { best = value; mask[i] = k + 1; } });
    }
    return mask;
  };
  // intersection over union of each true class, percent
  const score = (mask, truth) => {
    const counts = {};
    const at = (k) => (counts[k] ??= { both: 0, either: 0, true: 0 });
    for (let i = 0; i < truth.length; i++) {
      if (truth[i] === data.ignore) continue;
      if (truth[i]) { at(truth[i]).true++; at(truth[i]).either++; if (mask[i] === truth[i]) at(truth[i]).both++; }
      if (mask[i] && mask[i] !== truth[i]) at(mask[i]).either++;
    }
    const each = Object.entries(counts).filter(([, c]) => c.true).map(([k, c]) => [Number(k), (100 * c.both) / c.either]);
    return { each, mean: each.reduce((sum, [, v]) => sum + v, 0) / Math.max(each.length, 1) };
  };

  const methods = Object.keys(data.thresholds);
  const state = { scene: 0, method: methods[0], threshold: data.thresholds[methods[0]] };
  const choice = (name, legend, options, picked, changed) =>
    make("fieldset", { className: name }, make("legend", { textContent: legend }),
      ...options.map(([value, content]) => {
        const input = make("input", { type: "radio", name, value, checked: value === String(picked) });
        input.addEventListener("change", () => changed(value));
        return make("label", {}, input, content);
      }));
  const scenes = choice("scenes", "Scene", data.scenes.map((s, i) => [String(i), make("img", { src: s.picture, alt: `scene ${s.id}, ${s.present.map((k) => data.classes[k]).join(" and ")}`, title: s.id })]), 0,
    (value) => { state.scene = Number(value); draw(); });
  const slider = make("input", { type: "range", id: "threshold", min: "0", max: "1", step: "0.01", value: state.threshold });
  const shown = make("output", { htmlFor: "threshold" });
  slider.addEventListener("input", () => { state.threshold = Number(slider.value); draw(); });
  const choose = choice("methods", "Method", methods.map((m) => [m, m]), state.method,
    (value) => { state.method = value; state.threshold = slider.value = data.thresholds[value]; draw(); });
  const panels = ["picture", "map", "mask", "truth"].map((name) => {
    const canvas = make("canvas", { id: `explorer-${name}` });
    canvas.setAttribute("role", "img");
    return [name, canvas];
  });
  const result = make("div", { id: "explorer-result" });
  result.setAttribute("aria-live", "polite");
  root.replaceChildren(scenes, choose,
    make("p", { className: "threshold" }, make("label", { htmlFor: "threshold", textContent: "Background threshold" }), slider, shown),
    make("div", { className: "panels" }, ...panels.map(([name, canvas]) => make("figure", {}, canvas, make("figcaption", { textContent: name })))),
    result);

  const colour = (k) => data.colours[(k - 1) % data.colours.length].match(/\w\w/g).map((h) => parseInt(h, 16));
  const paint = (mask, picture) => {
    const out = new ImageData(picture.width, picture.height);
    mask.forEach((k, i) => {
      const c = k === data.ignore ? [255, 255, 255] : k ? colour(k) : null;
      for (let j = 0; j < 3; j++) out.data[4 * i + j] = c ? c[j] : 0.35 * picture.data[4 * i + j];
      out.data[4 * i + 3] = 255;
    });
    return out;
  };
  const heat = (maps, present, picture) => {
    const out = new ImageData(picture.width, picture.height), pixels = picture.width * picture.height;
    for (let i = 0; i < pixels; i++) {
      let value = 0;
      present.forEach((_, p) => { value = Math.max(value, maps[p * pixels + i] / 255); });
      const alpha = 0.15 + 0.7 * value, hot = [255 * Math.min(1, 2 * value), 255 * Math.max(0, 2 * value - 1), 60 * (1 - value)];
      for (let j = 0; j < 3; j++) out.data[4 * i + j] = (1 - alpha) * picture.data[4 * i + j] + alpha * hot[j];
      out.data[4 * i + 3] = 255;
    }
    return out;
  };
  const percent = (value) => `${value.toFixed(1)} %`;

  async function draw() {
    const { scene: index, method, threshold } = state, scene = data.scenes[index];
    const { picture, truth, maps } = await load(scene);
    if (state.scene !== index || state.method !== method || state.threshold !== threshold) return; // something newer is drawn
    const pixels = truth.length, masks = Object.fromEntries(methods.map((m) => [m, cut(maps[m], scene.present, pixels, threshold)]));
    const found = score(masks[method], truth);
    const layers = { picture, map: heat(maps[method], scene.present, picture), mask: paint(masks[method], picture), truth: paint(truth, picture) };
    for (const [name, canvas] of panels) {
      canvas.width = picture.width;
      canvas.height = picture.height;
      canvas.getContext("2d").putImageData(layers[name], 0, 0);
      canvas.setAttribute("aria-label", `${name} of ${scene.id}${name === "map" || name === "mask" ? `, ${method}` : ""}${name === "mask" ? `, threshold ${threshold.toFixed(2)}, IoU ${percent(found.mean)}` : ""}`);
    }
    shown.textContent = threshold.toFixed(2);
    slider.setAttribute("aria-valuetext", `${threshold.toFixed(2)}, IoU ${percent(found.mean)}`);
    const chip = (k) => make("span", { className: "chip", style: `background: ${data.colours[(k - 1) % data.colours.length]}` });
    const table = make("table", {}, make("caption", { textContent: "IoU of this image at this threshold, by method" }),
      make("tbody", {}, ...methods.map((m) => make("tr", { className: m === method ? "chosen" : "" }, make("th", { scope: "row", textContent: m }), make("td", { textContent: percent(score(masks[m], truth).mean) })))));
    result.replaceChildren(
      make("p", {}, make("strong", { id: "explorer-iou", textContent: `IoU ${percent(found.mean)}` }), ` with ${method}: `,
        ...found.each.flatMap(([k, v], i) => [i ? ", " : "", chip(k), ` ${data.classes[k - 1]} ${percent(v)}`])), table);
  }
  await draw();
  root.dataset.ready = "yes";
});
