# Generated sources: routes, limits and request checks from openapi.yaml; plug-in registries from the tree.
set(GENERATED_DIR ${CMAKE_BINARY_DIR}/generated)
set(GENERATE_PYTHON /usr/bin/python3 CACHE FILEPATH "Python with PyYAML")
file(GLOB PROVIDER_SOURCES CONFIGURE_DEPENDS daemon/providers/*.c)
file(GLOB MOVER_SOURCES CONFIGURE_DEPENDS daemon/movers/*.c daemon/movers/*/*.c)
include(cmake/embed.cmake)

if(EXISTS ${CMAKE_SOURCE_DIR}/openapi.yaml)
  add_custom_command(
    OUTPUT ${GENERATED_DIR}/api/openapi.gen.c ${GENERATED_DIR}/api/openapi.gen.h ${GENERATED_DIR}/api/openapi.json
    COMMAND ${GENERATE_PYTHON} ${CMAKE_SOURCE_DIR}/scripts/generate-api.py --openapi ${CMAKE_SOURCE_DIR}/openapi.yaml --out ${GENERATED_DIR}/api
    DEPENDS openapi.yaml scripts/generate-api.py
    COMMENT "Routes and request checks from openapi.yaml")
  add_custom_target(generated_api DEPENDS ${GENERATED_DIR}/api/openapi.gen.h)
endif()

# The dashboard as it was built (webui/README.md), and swagger-ui (third_party/README.md): no Node is needed to build the daemon.
file(GLOB_RECURSE ASSETS CONFIGURE_DEPENDS webui/dist/* third_party/swagger-ui/* api/docs/*)
include(cmake/manual.cmake)
add_custom_command(
  OUTPUT ${GENERATED_DIR}/api/assets.gen.c ${GENERATED_DIR}/api/assets.S
  COMMAND ${GENERATE_PYTHON} ${CMAKE_SOURCE_DIR}/scripts/embed-assets.py --out ${GENERATED_DIR}/api /ui/=${CMAKE_SOURCE_DIR}/webui/dist
    /docs/=${CMAKE_SOURCE_DIR}/third_party/swagger-ui /docs/=${CMAKE_SOURCE_DIR}/api/docs /docs/openapi.json=${GENERATED_DIR}/api/openapi.json
    /docs/manual/=${MANUAL_DIR}/html
  DEPENDS ${ASSETS} ${MANUAL_DIR}/made ${GENERATED_DIR}/api/openapi.json scripts/embed-assets.py
  COMMENT "The files that the daemon serves as they are")

# A registry is an array of every exported plug-in of a folder: adding a file adds it.
function(generate_registry kind out)
  set(names "")
  foreach(source IN LISTS ARGN)
    file(STRINGS ${source} exports REGEX "^[A-Z]+_EXPORT\\(")
    foreach(line IN LISTS exports)
      string(REGEX REPLACE "^[A-Z]+_EXPORT\\(([a-z_0-9]+)\\).*" "\\1" name "${line}")
      list(APPEND names "${name}")
    endforeach()
  endforeach()
  set(text "/* Generated from the tree; do not edit. */\n#include <string.h>\n#include \"${kind}s/${kind}.h\"\n")
  foreach(name IN LISTS names)
    string(APPEND text "extern const struct ${kind} ${kind}_${name};\n")
  endforeach()
  string(APPEND text "const struct ${kind} *const ${kind}s_all[] = {\n")
  foreach(name IN LISTS names)
    string(APPEND text "    &${kind}_${name},\n")
  endforeach()
  string(APPEND text "    0,\n};\nconst struct ${kind} *${kind}_by_name(const char *name)\n{\n    for (size_t i = 0; name && ${kind}s_all[i]; i++)\n        if (strcmp(${kind}s_all[i]->name, name) == 0)\n            return ${kind}s_all[i];\n    return 0;\n}\n")
  file(CONFIGURE OUTPUT ${out} CONTENT "${text}" @ONLY)
endfunction()
generate_registry(provider ${GENERATED_DIR}/provider_registry.gen.c ${PROVIDER_SOURCES})
generate_registry(mover ${GENERATED_DIR}/mover_registry.gen.c ${MOVER_SOURCES})
