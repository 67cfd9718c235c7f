include_directories(daemon ${CMAKE_SOURCE_DIR} ${GENERATED_DIR})

function(room name)  # a static library per folder of the tree: the folder is the unit of dependency
  file(GLOB sources CONFIGURE_DEPENDS daemon/${name}/*.c daemon/${name}/*/*.c)
  string(REPLACE "/" "_" target room_${name})
  if(sources)
    add_library(${target} STATIC ${sources})
    target_link_libraries(${target} PUBLIC ${ARGN})
  else()
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE ${ARGN})
  endif()
endfunction()

room(base PkgConfig::JANSSON)
# Where an installed daemon finds the executables that are its own alone (base/proc.h: proc_find_program).
set_source_files_properties(daemon/base/proc.c PROPERTIES COMPILE_DEFINITIONS QUIESCED_LIBEXEC_DIR="${CMAKE_INSTALL_FULL_LIBEXECDIR}/quiesced")
room(crypto room_base PkgConfig::OPENSSL Threads::Threads)
room(model room_base)
room(conf room_model PkgConfig::YAML)
target_compile_definitions(room_conf PRIVATE QUIESCED_CONFIG_FILE="${CMAKE_INSTALL_FULL_SYSCONFDIR}/quiesced/quiesced.yaml")
room(store room_model room_crypto PkgConfig::SQLITE Threads::Threads)
room(engine room_store room_model room_conf room_crypto)
room(front room_base PkgConfig::OPENSSL llhttp Threads::Threads)
room(providers room_base PkgConfig::MOUNT ${BTRFSUTIL_LIBRARY})
target_sources(room_providers PRIVATE ${GENERATED_DIR}/provider_registry.gen.c)
room(movers room_base room_crypto PkgConfig::ARCHIVE Threads::Threads)
target_sources(room_movers PRIVATE ${GENERATED_DIR}/mover_registry.gen.c)
room(worker room_model room_providers room_movers PkgConfig::CAPNG Threads::Threads)
room(writercheck room_model room_worker)
room(guardian room_base)
room(agent room_base room_providers room_guardian)
room(serve room_conf room_crypto room_guardian)

file(GLOB API_SOURCES CONFIGURE_DEPENDS api/*.c api/handlers/*.c)
if(API_SOURCES)
  add_library(room_api STATIC ${API_SOURCES} ${GENERATED_DIR}/api/openapi.gen.c ${GENERATED_DIR}/api/assets.gen.c
              ${GENERATED_DIR}/api/assets.S)
  add_dependencies(room_api generated_api)
  target_link_libraries(room_api PUBLIC room_engine PkgConfig::MICROHTTPD)
endif()

if(TARGET room_api AND EXISTS ${CMAKE_SOURCE_DIR}/daemon/main.c)
  add_executable(quiesced daemon/main.c)
  target_link_libraries(quiesced PRIVATE room_api room_engine room_front room_guardian room_serve room_writercheck)
  target_compile_definitions(quiesced PRIVATE QUIESCED_VERSION="${PROJECT_VERSION}")
  install(TARGETS quiesced RUNTIME DESTINATION ${CMAKE_INSTALL_SBINDIR})
endif()
add_custom_target(product) # what a user runs, without the tests
add_dependencies(product quiesced)

# The half with rights over applications and data: no network code, and quick to start.
add_executable(quiesced-agent daemon/agent_main.c)
target_link_libraries(quiesced-agent PRIVATE room_agent room_guardian room_worker room_movers)
install(TARGETS quiesced-agent RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/quiesced)
add_dependencies(product quiesced-agent)

# The client: the public API alone, so nothing of the daemon but base.
file(GLOB CLI_SOURCES CONFIGURE_DEPENDS daemon/cli/*.c)
add_executable(quiescectl ${CLI_SOURCES})
target_compile_definitions(quiescectl PRIVATE QUIESCED_VERSION="${PROJECT_VERSION}")
target_link_libraries(quiescectl PRIVATE room_base PkgConfig::CURL)
install(TARGETS quiescectl RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
add_dependencies(product quiescectl manual)
add_library(room_cli INTERFACE) # no library: its unit tests take in the sources that they are about
target_link_libraries(room_cli INTERFACE room_base)

# Speaks to receivers of webhooks: its own executable, so that no other role links libcurl and the thirty libraries behind it.
file(GLOB COURIER_SOURCES CONFIGURE_DEPENDS daemon/courier/*.c)
add_executable(quiesced-courier ${COURIER_SOURCES})
target_link_libraries(quiesced-courier PRIVATE room_model PkgConfig::CURL)
install(TARGETS quiesced-courier RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/quiesced)
add_dependencies(product quiesced-courier)

# Built-in writers: one executable each, so that only one links each database's client library.
function(writer name)
  file(GLOB own CONFIGURE_DEPENDS daemon/writers/${name}.c daemon/writers/${name}/*.c)
  file(GLOB shared CONFIGURE_DEPENDS daemon/writers/inplace/*.c)
  if(own)
    add_executable(quiesced-writer-${name} daemon/writers/writer_main.c daemon/writers/volumes.c daemon/writers/secret.c ${shared} ${own})
    target_link_libraries(quiesced-writer-${name} PRIVATE room_base ${ARGN})
    install(TARGETS quiesced-writer-${name} RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/quiesced)
    add_dependencies(product quiesced-writer-${name})
  endif()
endfunction()
add_library(room_writers INTERFACE) # no library: its unit tests take in the sources that need no server
target_link_libraries(room_writers INTERFACE room_base)
writer(sqlite PkgConfig::SQLITE)
writer(postgresql PkgConfig::PQ)
writer(mariadb PkgConfig::MARIADB)
writer(redis PkgConfig::HIREDIS)

# The benches' client (bench/README.md); no part of the product.
if(QUIESCED_TESTS)
  file(GLOB BENCH_LOAD_SOURCES CONFIGURE_DEPENDS bench/load/*.c)
  add_executable(bench-load ${BENCH_LOAD_SOURCES})
  target_link_libraries(bench-load PRIVATE PkgConfig::OPENSSL)
endif()
