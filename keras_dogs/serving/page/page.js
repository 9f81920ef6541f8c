// The page: a picture goes to every model that is served, and what each says is drawn beside where it looked.

const element = (id) => document.getElementById(id);
const percent = (share) =>
  (share >= 0.9995 && share < 1 ? "> 99.9 %" : share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);

const FRAMEWORKS = { jax: "JAX", tensorflow: "TensorFlow", torch: "PyTorch" };

let models = [];
let picture = null; // the file that is shown
let address = ""; // of the picture, in this browser
let turn = 0; // answers to an earlier picture, or for an earlier coverage, are dropped
let shownAt = 0; // the turn in which the picture came

async function ask(route, model, extra = {}) {
  const query = new URLSearchParams({ model: model.name, ...extra });
  const headers = { "content-type": picture.type.startsWith("image/") ? picture.type : "application/octet-stream" };
  const answer = await fetch(`${route}?${query}`, { method: "POST", body: picture, headers });
  const isOurs = answer.headers.get("content-type") === "application/json"; // not an error of a proxy
  const found = isOurs ? await answer.json() : {};
  if (!answer.ok) throw new Error(found.error ?? `the answer is HTTP ${answer.status}`);
  return found;
}

function labelOf(model, name) {
  return model.classes.find((each) => each.name === name)?.label ?? name;
}

function coverageOf(model) {
  const wanted = Number(element("coverage").value);
  return model.coverages.some((each) => Math.abs(each - wanted) < 1e-9) ? wanted : null;
}

function show(file) {
  picture = file;
  turn += 1;
  shownAt = turn;
  element("drop").classList.add("small");
  element("controls").hidden = false;
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(file);
  element("answers").replaceChildren(...models.map(card));
  answerAll();
  for (const model of models) if (model.explains) explain(model, turn);
}

function answerAll() {
  element("error").hidden = true;
  for (const model of models) answer(model, turn);
}

function card(model) {
  const made = element("card").content.cloneNode(true).firstElementChild;
  made.id = `of-${model.name}`;
  made.classList.add("waiting");
  made.setAttribute("aria-busy", "true");
  made.querySelector("h2").textContent = model.name;
  const accuracy = model.test_top1_accuracy;
  const facts = [model.preset, FRAMEWORKS[model.backend] ?? model.format, accuracy ? `${(100 * accuracy).toFixed(1)} % of its test pictures right` : ""];
  made.querySelector(".facts").textContent = facts.filter(Boolean).join(" · ");
  const shown = made.querySelector("img");
  shown.alt = `The picture that was given: ${picture.name || "pasted"}`;
  shown.addEventListener("error", () => {
    made.querySelector("figure").classList.add("unseen");
    made.querySelector("figcaption").textContent = "This browser cannot show pictures of this format.";
  });
  shown.src = address;
  watching.observe(made.querySelector("figure"));
  return made;
}

async function answer(model, mine) {
  const made = element(`of-${model.name}`);
  try {
    const coverage = coverageOf(model);
    const found = await ask("predict", model, coverage ? { coverage } : {});
    if (mine !== turn) return;
    tell(model, made, found.predictions[0], coverage);
  } catch (problem) {
    if (mine === turn) refuse(`${model.name}: ${problem.message}`);
  }
  made.classList.remove("waiting");
  made.setAttribute("aria-busy", "false");
}

async function explain(model, mine) {
  try {
    const heat = await ask("explain", model);
    if (mine === shownAt) heatOver(element(`of-${model.name}`), heat);
  } catch {
    // The answer says what is wrong with the picture.
  }
}

function refuse(text) {
  element("error").textContent = text;
  element("error").hidden = false;
}

function tell(model, made, said, coverage) {
  made.classList.toggle("is-strange", said.unfamiliar === true);
  const strange = made.querySelector(".strange");
  strange.hidden = said.unfamiliar !== true;
  const share = said.unfamiliarity >= 0.995 ? "all" : `${Math.round(100 * said.unfamiliarity)} %`;
  strange.replaceChildren(bold("Unfamiliar"), `Unusual for this model: stranger than ${share} of the pictures it was validated on. The nearest breeds:`);
  // Sorted here, as an object lists names that are whole numbers first.
  const breeds = Object.entries(said.breeds).sort((one, other) => other[1] - one[1]);
  const rows = breeds.map(([name, probability]) => row(labelOf(model, name), probability));
  made.querySelector("ol").replaceChildren(...rows);
  const set = made.querySelector(".set");
  set.hidden = !said.set || said.unfamiliar === true; // the promise is of pictures like those of validation
  if (said.set) {
    const several = said.set.length === 1 ? "one breed" : `${said.set.length} breeds`;
    set.querySelector("h3").textContent = `With ${Math.round(100 * coverage)} % probability, one of ${several}:`;
    if (said.set.length === 1) set.querySelector("h3").textContent = `With ${Math.round(100 * coverage)} % probability:`;
    const shown = said.set.slice(0, 12).map((name) => item(labelOf(model, name)));
    if (said.set.length > 12) shown.push(item(`and ${said.set.length - 12} more`));
    set.querySelector("ul").replaceChildren(...shown);
  }
}

function bold(text) {
  const made = document.createElement("strong");
  made.textContent = text;
  return made;
}

function item(text) {
  const made = document.createElement("li");
  made.textContent = text;
  return made;
}

function row(label, probability) {
  const made = item(label);
  const number = document.createElement("span");
  number.className = "percent";
  number.textContent = percent(probability);
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  const filled = document.createElement("span");
  filled.style.width = "0";
  requestAnimationFrame(() => (filled.style.width = `${Math.max(100 * probability, 0.4)}%`));
  bar.append(filled);
  made.append(number, bar);
  return made;
}

// Seven colours of the scale "inferno", dark to light.
const COLOURS = [[0, 0, 4], [51, 10, 95], [120, 28, 109], [186, 54, 85], [237, 105, 37], [251, 180, 26], [252, 255, 164]];

function colour(value) {
  const place = value * (COLOURS.length - 1);
  const low = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[low].map((each, channel) => each + (place - low) * (COLOURS[low + 1][channel] - each));
}

function heatOver(made, found) {
  const canvas = made.querySelector("canvas");
  const [rows, columns] = [found.heat.length, found.heat[0].length];
  const small = new OffscreenCanvas(columns, rows);
  const pixels = new ImageData(columns, rows);
  found.heat.flat().forEach((value, place) => pixels.data.set([...colour(value), 60 + 195 * value], 4 * place));
  small.getContext("2d").putImageData(pixels, 0, 0);
  canvas.width = 448;
  canvas.height = Math.round((448 * rows) / columns);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (!made.querySelector(".unseen")) made.querySelector("figcaption").textContent = found.method;
  made.dataset.fit = found.fit;
  place(made);
}

// The heat is of what the model was given: the whole picture, its middle ("crop"), or the picture and its frame ("pad").
function place(made) {
  const [shown, canvas] = [made.querySelector("img"), made.querySelector("canvas")];
  if (!canvas.width || !shown.naturalWidth || !made.dataset.fit) return;
  const scale = Math.min(shown.clientWidth / shown.naturalWidth, shown.clientHeight / shown.naturalHeight);
  let [width, height] = [shown.naturalWidth * scale, shown.naturalHeight * scale];
  const shape = canvas.width / canvas.height;
  if (made.dataset.fit === "crop") [width, height] = [Math.min(width, height * shape), Math.min(height, width / shape)];
  if (made.dataset.fit === "pad") [width, height] = [Math.max(width, height * shape), Math.max(height, width / shape)];
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.style.left = `${shown.offsetLeft + (shown.clientWidth - width) / 2}px`;
  canvas.style.top = `${shown.offsetTop + (shown.clientHeight - height) / 2}px`;
  canvas.style.opacity = element("heat").value / 100;
}

// A picture moves when the window or the text beside it changes its size.
const watching = new ResizeObserver(placeAll);

function placeAll() {
  document.querySelectorAll("article").forEach(place);
}

function take(files) {
  const file = [...files].find((each) => each.type.startsWith("image/") || /\.(hei[cf]|jpe?g|png|webp|tiff?|bmp|gif|avif)$/i.test(each.name));
  if (file) show(file);
  else if (files.length) refuse("That is not a picture.");
}

function chosen(event) {
  const files = [...event.target.files];
  event.target.value = ""; // the same file may be chosen again
  take(files);
}

function listen() {
  for (const id of ["choose", "photograph"]) element(id).addEventListener("change", chosen);
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    element("drop").classList.add("over");
  });
  for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => element("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files);
  });
  element("heat").addEventListener("input", placeAll);
  element("coverage").addEventListener("change", () => {
    turn += 1;
    if (picture) answerAll();
  });
  document.addEventListener("load", placeAll, true);
}

async function begin() {
  const found = await (await fetch("metadata")).json();
  models = found.models;
  element("answers").classList.toggle("one", models.length === 1);
  element("models").textContent = models.map((each) => `${each.name} knows ${each.classes.length} breeds`).join("; ");
  const coverages = [0.8, 0.9, 0.95, 0.99].filter((each) => models.some((model) => model.coverages.some((one) => Math.abs(one - each) < 1e-9)));
  element("coverage").replaceChildren(...coverages.map((each) => new Option(`${Math.round(100 * each)} %`, each, each === 0.9, each === 0.9)));
  element("coverage-control").hidden = !coverages.length;
  element("heat-control").hidden = !models.some((each) => each.explains);
  listen();
}

begin().catch((problem) => refuse(`The server does not answer: ${problem.message}`));
