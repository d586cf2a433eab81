// Three planes of two volumes of one person, divided by a slider: left of it the first, right of it the second.
(() => {
  const root = document.getElementById("viewer");
  if (!root) return;
  const people = JSON.parse(document.getElementById("volumes").textContent).people;
  const part = name => root.querySelector(`[data-part=${name}]`);
  const [who, before, after, split, readout] = ["who", "before", "after", "split", "readout"].map(part);
  const canvases = Object.fromEntries(["sagittal", "coronal", "axial"].map(plane => [plane, part(plane)]));
  const cache = new Map();
  let person, place, shown = [null, null], wanted = 0;

  // The voxels of a volume, x fastest, from its mosaic of axial slices (anterior up).
  const decode = (person, volume) => {
    const key = `${person.name}/${volume.name}`;
    if (!cache.has(key)) cache.set(key, new Promise((resolve, reject) => {
      const image = new Image();
      image.onerror = () => reject(new Error(`${key} is not readable`));
      image.onload = () => {
        const [nx, ny, nz] = person.shape;
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.width, image.height];
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        const pixels = context.getImageData(0, 0, image.width, image.height).data;
        const voxels = new Uint8Array(nx * ny * nz);
        for (let z = 0; z < nz; z++) {
          const left = (z % person.columns) * nx, top = Math.floor(z / person.columns) * ny;
          for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++)
            voxels[x + nx * (y + ny * z)] = pixels[4 * ((top + ny - 1 - y) * image.width + left + x)];
        }
        resolve(voxels);
      };
      image.src = `data:image/jpeg;base64,${volume.data}`;
    }));
    return cache.get(key);
  };

  // Each plane: the axes across and up, and the one through it.
  const axes = { sagittal: [1, 2, 0], coronal: [0, 2, 1], axial: [0, 1, 2] };

  const draw = () => {
    if (!shown[0] || !shown[1]) return;
    const { shape, voxel } = person, share = split.value / 100;
    for (const [plane, [across, up, through]] of Object.entries(axes)) {
      const canvas = canvases[plane], width = shape[across], height = shape[up];
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      canvas.style.aspectRatio = `${width * voxel[across]} / ${height * voxel[up]}`;
      const context = canvas.getContext("2d", { willReadFrequently: true }), image = context.createImageData(width, height), at = [0, 0, 0];
      at[through] = place[through];
      for (let v = 0; v < height; v++) for (let u = 0; u < width; u++) {
        at[across] = u; at[up] = height - 1 - v;
        const volume = shown[u < share * width ? 0 : 1], grey = volume[at[0] + shape[0] * (at[1] + shape[1] * at[2])];
        const [beside, above] = [Math.abs(u - place[across]), Math.abs(height - 1 - v - place[up])];
        const cross = beside + above > 4 && (!beside || !above);  // open in the middle, where one looks
        const pixel = 4 * (v * width + u);
        image.data.set(cross ? [grey * .6, grey * .6 + 90, grey * .6, 255] : [grey, grey, grey, 255], pixel);
        if (u === Math.round(share * width)) image.data.set([240, 180, 40, 255], pixel);
      }
      context.putImageData(image, 0, 0);
    }
    const mm = place.map((index, axis) => ((index - (shape[axis] - 1) / 2) * voxel[axis]).toFixed(0));
    readout.textContent = `left: ${before.value}, right: ${after.value}; ${mm[0]} mm right, ${mm[1]} mm anterior, ${mm[2]} mm superior of the middle`;
    root.dataset.drawn = `${person.name} ${before.value} ${after.value} ${split.value} ${place}`;
  };

  const load = async () => {
    const turn = ++wanted;
    const chosen = [before, after].map(select => person.volumes.find(volume => volume.name === select.value));
    const found = await Promise.all(chosen.map(volume => decode(person, volume)));
    if (turn === wanted) { shown = found; draw(); }
  };

  const choose = () => {
    person = people[who.value];
    const kept = [before.value || "low-field", after.value];
    const names = person.volumes.map(volume => volume.name);
    for (const [select, name, other] of [[before, kept[0], 0], [after, kept[1], names.length - 1]]) {
      select.replaceChildren(...names.map(each => new Option(each, each)));
      select.value = names.includes(name) ? name : names[other];
    }
    place = person.shape.map(size => Math.floor(size / 2));
    load();
  };

  people.forEach((each, index) => who.add(new Option(each.name, index)));
  who.addEventListener("change", choose);
  for (const select of [before, after]) select.addEventListener("change", load);
  split.addEventListener("input", draw);
  for (const [plane, [across, up]] of Object.entries(axes)) {
    const canvas = canvases[plane];
    const move = event => {
      if (!event.buttons && event.type !== "pointerdown") return;
      const box = canvas.getBoundingClientRect(), within = (share, size) => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
      place[across] = within((event.clientX - box.left) / box.width, person.shape[across]);
      place[up] = person.shape[up] - 1 - within((event.clientY - box.top) / box.height, person.shape[up]);
      draw();
    };
    canvas.addEventListener("pointerdown", move);
    canvas.addEventListener("pointermove", move);
  }
  choose();
})();
