import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "/ui/",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    assetsInlineLimit: 0, // nothing as data: but the icon of index.html
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    // what the first view needs comes as one file: a second connection would cost it a handshake
    rolldownOptions: { output: { codeSplitting: { groups: [{ name: "index", test: /\/(node_modules|src\/(api|model|state|ui)|src\/i18n\/index|src\/shell|src\/screens\/(login|overview)|src\/app|src\/main)/ }] } } },
  },
  test: { include: ["test/**/*.test.ts"], environment: "node", setupFiles: ["test/setup.ts"] },
});
