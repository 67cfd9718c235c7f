// The few things of a browser that pure modules touch when they are loaded.
const storage = new Map<string, string>();
Object.assign(globalThis, {
  localStorage: { getItem: (key: string) => storage.get(key) ?? null, setItem: (key: string, value: string) => storage.set(key, value) },
  document: { documentElement: { dataset: {} }, addEventListener: () => undefined, hidden: false },
});
